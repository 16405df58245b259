// Elements of the page. Texts are set as text, never as markup: a name can hold anything.

import { saved } from './requests.js'

/** Make an element: properties by name, `data` and `aria` as nested objects, events as functions named on*. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag)
  fill(made, properties)
  made.append(...children.filter((child) => child !== null && child !== undefined))
  return made
}

/** Make an element of an SVG picture. */
export function drawing(tag, properties = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

function fill(made, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue
    if (name === 'data') for (const [key, text] of Object.entries(value)) made.dataset[key] = text
    else if (name === 'aria') for (const [key, text] of Object.entries(value)) made.setAttribute(`aria-${key}`, text)
    else if (name === 'class') made.className = value
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value)
    else if (name === 'role' || name === 'for' || name === 'scope') made.setAttribute(name, value)
    else made[name] = value
  }
}

/** An image of the run by its row; where it cannot be shown, its place says so. */
export function picture(row, { kind = 'image', side = 96, target, source, alt = '' } = {}) {
  const made = element('img', { alt, loading: 'lazy', decoding: 'async', src: pictureAddress(row, kind, side, target, source) })
  made.addEventListener('error', () => made.replaceWith(element('span', { class: 'broken' }, 'cannot be shown')))
  return made
}

export function pictureAddress(row, kind, side, target, source) {
  if (saved) return saved.pictures[`${row} ${kind}`] ?? 'data:,'
  const of = target === undefined ? '' : `&target=${target}`
  return `/api/images/${row}/picture?kind=${kind}&side=${side}${of}${kind === 'masked' && source ? `&source=${source}` : ''}`
}

/** The bar of the colours of relevance maps, with the values at its ends where they are known. `kind`: relevance or overlay. */
export function colourBar(kind, bound) {
  const size = bound ? Number(bound.toPrecision(1)) : ''
  return element(
    'span', { class: 'colour-bar' }, `${size && `−${size} `}against`,
    element('span', { class: `colours ${kind}`, role: 'img', aria: { label: 'blue: against the class, red: for it' } }), `for the class${size && ` ${size}`}`,
  )
}

/** A menu of [value, text] choices with a label before it. */
export function menu(label, choices, chosen, changed) {
  const select = element('select', { aria: { label }, onchange: () => changed(select.value) })
  for (const [value, text] of choices) select.append(element('option', { value, selected: value === chosen }, text))
  return element('label', {}, label, select)
}

export const percent = (share) => (share === null ? '' : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}\u00a0%`)
/** A text whose percent signs stay in the line of their number. */
export const unbroken = (text) => String(text).replaceAll(' %', '\u00a0%')
export const signed = (value) => `${Math.abs(value) < 0.005 ? '' : value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`
export const probability = (p) => (p === null || p === undefined ? '' : p < 0.0005 ? '<0.001' : p.toFixed(3))

/** The interval of an effect on a scale of `most` logits to both sides of 0. */
export function effectInterval(line, most) {
  const x = (value) => 50 + 48 * Math.max(-1, Math.min(1, value / most))
  const text = `${signed(line.shift)} (${signed(line.low)} to ${signed(line.high)})`
  return drawing(
    'svg', { class: 'effect', viewBox: '0 0 100 14', role: 'img', 'aria-label': `logit ${text}`, preserveAspectRatio: 'none' },
    drawing('line', { class: 'zero', x1: 50, x2: 50, y1: 1, y2: 13 }),
    drawing('line', { class: 'range', x1: x(line.low), x2: x(line.high), y1: 7, y2: 7 }),
    drawing('line', { class: 'range', x1: x(line.shift), x2: x(line.shift), y1: 3, y2: 11 }),
  )
}
