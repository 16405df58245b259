// Requests to the server, and the message line that tells what went wrong.

export class Refused extends Error {}

async function answer(path, options) {
  let response
  try {
    response = await fetch(path, options)
  } catch {
    throw new Refused('The server does not answer: it may have been stopped. Decisions made before are kept.')
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({}))
    throw new Refused(told.error ?? `${response.status} ${response.statusText}`)
  }
  return response
}

export const read = async (path) => (await answer(path)).json()
export const readBytes = async (path) => (await answer(path)).arrayBuffer()

const body = (content) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(content) })
export const write = async (path, content) => (await answer(path, body(content))).json()
export const writeForPicture = async (path, content) => {
  const response = await answer(path, body(content))
  return { count: Number(response.headers.get('x-images')), blob: await response.blob() }
}

/** Show a message above the page, or nothing. */
export function tell(text) {
  const place = document.getElementById('message')
  place.textContent = text ?? ''
  place.hidden = !text
}

/** Run what may be refused; a refusal is told. */
export async function attempt(act) {
  try {
    const found = await act()
    tell()
    return found
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    tell(error.message)
    return undefined
  }
}
