// Requests to the server, and the message line that tells what went wrong.

export class Refused extends Error {
  constructor(message, status) {
    super(message)
    this.status = status
  }
}

const copy = document.getElementById('saved')
/** Answers of a page that was saved as a file; undefined where a server answers. */
export const saved = copy ? JSON.parse(copy.textContent) : undefined

function savedAnswer(path, options) {
  if (options) throw new Refused('This page is a saved copy: decisions are made in klarsicht audit explore.')
  const [address, query] = path.split('?')
  if (address === '/api/images') return new Response(JSON.stringify(query.slice('rows='.length).split(',').map((row) => saved.images[row]).filter(Boolean)))
  if (address in saved.answers) return new Response(JSON.stringify(saved.answers[address]))
  if (address in saved.points) return new Response(Uint8Array.from(atob(saved.points[address]), (one) => one.charCodeAt(0)))
  throw new Refused('This saved copy of the page does not contain that.')
}

async function answer(path, options) {
  if (saved) return savedAnswer(path, options)
  let response
  try {
    response = await fetch(path, options)
  } catch {
    throw new Refused('The server does not answer: it may have been stopped. Decisions made before are kept.')
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({}))
    throw new Refused(told.error ?? `${response.status} ${response.statusText}`, response.status)
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

let refusals = 0

/** Run what may be refused; a refusal is told, and stays until something that was asked for after it succeeds. */
export async function attempt(act) {
  const before = refusals
  try {
    const found = await act()
    if (refusals === before) tell()
    return found
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    refusals++
    tell(error.message)
    return undefined
  }
}

let last = Promise.resolve()
let unwritten = 0

/** Run an act after those that were asked for before it: it sees the page as their answers left it. */
export function inTurn(act) {
  const mine = last.then(act)
  last = mine.catch(() => {})
  return mine
}

/** Run an act that writes decisions, in turn; a refusal is told. */
export function record(act) {
  unwritten++
  return attempt(() => inTurn(act)).finally(() => { unwritten-- })
}

addEventListener('beforeunload', (event) => { if (unwritten) event.preventDefault() })
