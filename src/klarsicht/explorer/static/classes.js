// The list of classes: sorted, filtered, searched, decided.

import { effectInterval, element, menu, percent, picture, probability, signed, unbroken } from './elements.js'
import { inTurn, read, record, Refused, saved, write } from './requests.js'
import { VirtualList } from './virtual.js'

const DECIDED = { '': 'all', none: 'undecided', artifact: 'artifact', legitimate: 'legitimate', unsure: 'unsure' }
const number = (value, last) => (value === null || value === undefined ? last : value)
const ORDERS = {
  verdict: (a, b) => a.place - b.place,
  name: (a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }),
  p: (a, b) => number(a.p, 2) - number(b.p, 2) || a.place - b.place,
  effect: (a, b) => number(b.shift, -1e9) - number(a.shift, -1e9) || a.place - b.place,
  prevalence: (a, b) => number(b.prevalence, -1) - number(a.prevalence, -1) || a.place - b.place,
  z: (a, b) => number(b.z, -1e9) - number(a.z, -1e9) || a.place - b.place,
}
export const DECISIONS = [['artifact', 'artifact', 'y'], ['legitimate', 'legitimate', 'n'], ['unsure', 'unsure', 'u']]

export const state = {
  classes: [], headings: {}, surroundings: '', revision: '', records: 0, search: '', kind: '', decided: '', order: 'verdict', current: 0, written: [], shown: [], most: 1, reads: 0,
}
const WIDE = matchMedia('(min-width: 1800px)') // where lines show more images
const FEW_IMAGES = 3

/** Read the lines again where the run changed, `told` tells how far it is; returns whether it did. Lines stay the same
 *  objects, which pages hold. */
export const refresh = (told) => inTurn(async () => {
  if (told && told.revision === state.revision && told.records === state.records) return false
  const found = await read('/api/classes')
  const known = new Map(state.classes.map((line) => [line.target, line]))
  Object.assign(state, { revision: found.revision, records: found.records, headings: found.headings, surroundings: found.surroundings, reads: state.reads + 1 })
  state.classes = found.classes.map((line, place) => Object.assign(known.get(line.target) ?? {}, line, { place, sought: line.name.toLowerCase() }))
  const ends = state.classes.flatMap((line) => (line.shift === null ? [] : [Math.abs(line.low), Math.abs(line.high)]))
  state.most = Math.max(0.5, ...ends)
  return true
})

export const decisionOf = (line) => line.decided?.decision ?? ''

/** Lines that pass the filters, in order. */
export function chosen({ classes, search, kind, decided, order }) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean)
  return classes
    .filter((line) => !kind || line.kind === kind)
    .filter((line) => !decided || (decisionOf(line) || 'none') === decided)
    .filter((line) => words.every((word) => line.sought.includes(word) || line.decided?.artifact.toLowerCase().includes(word)))
    .sort(ORDERS[order])
}

/** Keep what the server tells of a record that this page wrote; returns the line of its class. Where others wrote one in
 *  between, the lines are read again by the next `refresh`. */
function keep(told) {
  const line = state.classes.find((one) => one.target === told.target)
  if (line) line.decided = told.decided
  if (told.number === state.records) state.records++
  return line
}

/** Write a decision, in an act of `record`; returns what the server tells. */
export async function writeDecision(content) {
  const told = await write('/api/decisions', content)
  state.written.push(told.number)
  keep(told)
  return told
}

/** Record a decision on a class; the same one as the page shows takes it back. Returns whether it is recorded. */
export function decide(line, decision) {
  const wanted = decisionOf(line) === decision ? '' : decision
  return record(async () => {
    await writeDecision({ target: line.target, decision: wanted })
    return true
  })
}

/** Take back the last record that this page wrote; returns the class that it was of. */
export const undo = () => record(async () => {
  if (!state.written.length) return undefined
  const number = state.written.pop()
  try {
    return keep(await write('/api/undo', { number }))
  } catch (error) {
    if (!(error instanceof Refused && error.status === 400)) state.written.push(number) // else it is taken back already
    throw error
  }
})

/** Buttons that decide on a class; in a saved copy, where nothing can be decided, the decision in words. */
export function decisionButtons(line, changed) {
  if (saved) return element('span', { class: 'soft' }, DECISIONS.find(([decision]) => decision === decisionOf(line))?.[1] ?? 'undecided')
  const buttons = DECISIONS.map(([decision, text, key]) =>
    element(
      'button',
      {
        type: 'button', title: `${text} (${key})`, data: { decision }, aria: { pressed: decisionOf(line) === decision, label: `${text}: ${line.name}` },
        onclick: async (event) => {
          event.stopPropagation()
          if (await decide(line, decision)) changed()
        },
      },
      text,
    ),
  )
  return element('div', { class: 'decide', role: 'group', aria: { label: `Decision on ${line.name}` } }, ...buttons)
}

/** Whether `audit quantify` was run: before, p and effects are not known, and z stands in their place. */
const isQuantified = () => state.classes.some((line) => line.p !== null || line.shift !== null)

/** Images of the class, and how many of them have what was found; of a class without an artifact only the former. */
const memberCount = (line) => line.prevalence === null ? `${line.n} images` : `${line.size} of ${line.n}`

function makeLine(line, index, page) {
  const decided = line.decided
  const cell = (name, ...content) => element('div', { class: name, role: 'gridcell' }, ...content)
  const text = line.shift === null ? '' : `${signed(line.shift)} (${signed(line.low)} to ${signed(line.high)})`
  const made = element(
    'div', { class: 'line', role: 'row', onclick: () => page.choose(state.shown.findIndex((one) => one.target === line.target)) },
    cell(
      'name', element('a', { href: `#/class/${line.target}`, title: line.name }, line.name),
      element('div', { class: 'soft' }, decided?.artifact ? element('span', { class: 'tag' }, decided.artifact) : memberCount(line)),
    ),
    cell('verdict', element('span', { class: `kind ${line.kind}`, title: line.verdict }, line.label)),
    ...(page.quantified ? [
      cell('number p', probability(line.p)),
      cell('effect-cell', line.shift === null ? '' : effectInterval(line, state.most), element('div', { class: 'effect-text' }, text)),
    ] : [cell('number z', line.z === null ? '' : line.z.toFixed(2))]),
    cell('number prevalence', percent(line.prevalence)),
    cell('first', ...line.first.slice(0, WIDE.matches ? undefined : FEW_IMAGES).map((row) => picture(row, { side: 96, alt: '' }))),
    cell('decide-cell', decisionButtons(line, () => page.decided(line))),
  )
  if (page.index === index) made.classList.add('current')
  return made
}

/** Show the page; returns what keys do and what ends it. */
export function showClasses(place) {
  const page = {
    quantified: isQuantified(),
    get index() { return state.current },
    choose(index) {
      state.current = Math.max(0, Math.min(state.shown.length - 1, index))
      list.reveal(state.current)
    },
    decided() { list.draw(); drawCount() },
  }
  const count = element('span', { class: 'soft', role: 'status', aria: { live: 'polite' } })
  const head = element('div', { class: 'line head', role: 'row', aria: { rowindex: 1 } })
  const drawHead = () => {
    page.quantified = isQuantified()
    const named = state.headings
    const headings = [named.class, named.verdict, ...(page.quantified ? [named.p, named.shift] : ['z']), 'prevalence', 'first images', 'decision']
    head.replaceChildren(...headings.map((text) => element('div', { role: 'columnheader', class: [named.p, 'z', 'prevalence'].includes(text) ? `number ${text === named.p ? 'p' : text}` : '' }, unbroken(text))))
    list.root.classList.toggle('ranked', !page.quantified)
  }
  const list = new VirtualList({
    label: 'Classes', head, key: (line) => line.target, make: (line, index) => makeLine(line, index, page),
    stamp: (line, index) => [state.reads, index === state.current, WIDE.matches, JSON.stringify(line.decided)].join(),
    height: () => (matchMedia('(max-width: 940px)').matches ? 116 : 76),
  })
  const drawCount = () => {
    const done = state.classes.filter(decisionOf).length
    count.textContent = `${state.shown.length} of ${state.classes.length} classes, ${done} decided`
  }
  const draw = () => {
    const current = state.shown[state.current]?.target
    state.shown = chosen(state)
    state.current = Math.max(0, state.shown.findIndex((line) => line.target === current))
    drawHead()
    list.set(state.shown)
    drawCount()
    surroundings.hidden = !state.surroundings
    surroundings.replaceChildren(`${state.surroundings} `, element('a', { href: '#/exceptions' }, 'Exceptions'))
    empty.hidden = state.shown.length > 0
  }
  const filter = (name) => (value) => {
    state[name] = value
    list.root.scrollTop = 0
    draw()
  }
  const surroundings = element('div', { class: 'bar' })
  const search = element('input', {
    type: 'search', placeholder: 'Search classes', value: state.search, aria: { label: 'Search classes' }, oninput: () => filter('search')(search.value),
  })
  const kinds = [['', 'all'], ...new Map(state.classes.map((line) => [line.kind, line.label]))] // the most urgent first
  const empty = element('p', { class: 'empty', hidden: true }, state.classes.length ? 'No class passes the filters.' : 'No class is analysed yet.')
  place.replaceChildren(
    element(
      'div', { class: 'bar' }, element('h1', {}, 'Classes'), search,
      menu('verdict', kinds, state.kind, filter('kind')), menu('decision', Object.entries(DECIDED), state.decided, filter('decided')),
      menu('order', Object.keys(ORDERS).map((key) => [key, key]), state.order, filter('order')), count,
      ...(saved ? [] : [element('button', { type: 'button', onclick: async () => { if (await undo()) draw() } }, 'Undo')]),
    ),
    surroundings, empty, list.root,
  )
  draw()
  list.root.focus()
  list.reveal(state.current)
  return {
    redraw: draw,
    async key(event) {
      const line = state.shown[state.current]
      const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key]
      if (step) page.choose(state.current + step)
      else if (event.key === 'Home') page.choose(0)
      else if (event.key === 'End') page.choose(state.shown.length - 1)
      else if (event.key === '/') search.focus()
      else if (event.key === 'Enter' && line && event.target.tagName !== 'A' && event.target.tagName !== 'BUTTON') location.hash = `#/class/${line.target}`
      else if (event.key === 'z') { const back = await undo(); if (back) draw() }
      else {
        const found = DECISIONS.find(([, , key]) => key === event.key)
        if (!found || !line) return false
        if (await decide(line, found[0])) page.decided()
      }
      return true
    },
  }
}
