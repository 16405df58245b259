// The explorer's pages by the address's fragment, keys, and progress of a run that is still going on.

import { showClassPage } from './class_page.js'
import { refresh, showClasses } from './classes.js'
import { showComparison } from './comparison.js'
import { showCorrections } from './corrections.js'
import { element } from './elements.js'
import { showExceptions } from './exceptions.js'
import { showFindings } from './findings.js'
import { attempt, read, saved } from './requests.js'

const POLL = 2500 // milliseconds between two questions for progress
const place = document.getElementById('page')
const listed = attempt(() => refresh())
const run = await read('/api/run')
let page = {}
let turn = 0

const PAGES = [
  [/^#\/class\/(\d+)$/, 'classes', (found) => showClassPage(place, Number(found[1]), run, listed)],
  [/^#\/findings$/, 'findings', () => showFindings(place)],
  [/^#\/exceptions$/, 'exceptions', () => showExceptions(place)],
  [/^#\/corrections$/, 'corrections', () => showCorrections(place)],
  [/^#\/comparison$/, 'comparison', () => showComparison(place)],
  [/.*/, 'classes', async () => { await listed; return showClasses(place) }],
]

async function show() {
  const mine = ++turn
  const [pattern, name, open] = PAGES.find(([one]) => one.test(location.hash))
  page.end?.()
  page = {}
  const made = await attempt(() => open(location.hash.match(pattern)))
  if (mine !== turn) {
    made?.end?.()
    return
  }
  page = made ?? {}
  document.title = `${place.querySelector('h1')?.textContent ?? 'klarsicht'} – klarsicht`
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.page === name) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
}

const typing = (target) => ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName)

document.addEventListener('keydown', async (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
  if (typing(event.target)) {
    if (event.key === 'Escape') event.target.blur()
    return
  }
  if (event.key === '?') return document.getElementById('help').showModal()
  if (['j', 'k', 'ArrowDown', 'ArrowUp', 'PageDown', 'PageUp', '/', 'Home', 'End'].includes(event.key) && page.key && !page.scrolls) event.preventDefault()
  await page.key?.(event)
})
document.getElementById('help-button').addEventListener('click', () => document.getElementById('help').showModal())

function showProgress(steps) {
  const line = document.getElementById('progress')
  const open = steps.filter((step) => step.done < step.units)
  line.hidden = open.length === 0
  if (!open.length) return
  const step = open.find((one) => !one.beside) ?? open[0]
  const name = step.words
  line.replaceChildren(
    step.beside
      ? `The audit is complete. audit power works or was stopped: ${name}, ${step.done} of ${step.units} `
      : `This run is not complete: ${name}, ${step.done} of ${step.units} `,
    element('progress', { max: step.units, value: step.done, aria: { label: name } }),
  )
}

async function poll() {
  const told = await read('/api/progress').catch(() => undefined)
  if (told) {
    showProgress(told.steps)
    if (await refresh(told).catch(() => false)) page.redraw?.()
  }
  setTimeout(poll, POLL)
}

document.getElementById('model').textContent = `${run.model} on ${run.data}${run.saved ? ' (saved copy, read-only)' : ''}`
if (saved) for (const one of document.querySelectorAll('.decides')) one.hidden = true
addEventListener('hashchange', show)
await show()
poll()
