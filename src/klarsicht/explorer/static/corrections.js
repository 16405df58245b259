// Corrections before and after: the figures of each, and the images whose prediction changed.

import { element, picture } from './elements.js'
import { read } from './requests.js'

const MOST_SHOWN = 300 // images of a correction in its table

/** "12.3 (10.1 to 14.9)" in percent, of an interval or a number. */
function figure(value) {
  if (value === null || value === undefined) return ''
  if (typeof value === 'number') return (100 * value).toFixed(1)
  return `${(100 * value.value).toFixed(1)} (${(100 * value.low).toFixed(1)} to ${(100 * value.high).toFixed(1)})`
}

const isInterval = (value) => value !== null && typeof value === 'object' && 'value' in value && 'low' in value

/** Rows of figures that both models have, from two looks or two rows of a certificate. */
function figuresOf(before, after) {
  return Object.keys(after ?? {}).filter((name) => isInterval(before?.[name]) || isInterval(after[name])).map((name) => [name, before?.[name], after[name]])
}

function table(headings, rows) {
  return element(
    'div', { class: 'wide', tabIndex: 0, role: 'region', aria: { label: headings.join(', ') } },
    element(
      'table', {}, element('thead', {}, element('tr', {}, ...headings.map((text) => element('th', { scope: 'col' }, text)))),
      element('tbody', {}, ...rows.map((row) => element('tr', {}, ...row.map((cell) => element('td', {}, cell))))),
    ),
  )
}

function beforeAndAfter(found) {
  if (found.certificate?.before) {
    const { before, corrections } = found.certificate
    return corrections.map((one) => [one.name, one.verdict, figuresOf(before.figures, one.figures)])
  }
  if (found.evaluation?.looks) {
    const [before, after] = found.evaluation.looks
    return [[after.correction, found.evaluation.verdict ?? '', figuresOf(before, after)]]
  }
  if (found.correction?.judgement?.before) {
    const { before, after, verdict } = found.correction.judgement
    return [[found.name, verdict ?? '', figuresOf(before, after)]]
  }
  return []
}

export async function showCorrections(place) {
  const found = await read('/api/corrections')
  const cards = found.map((one) => element(
    'section', { class: 'card' },
    element('h2', {}, one.name),
    element('p', { class: 'soft' }, [one.correction?.class, one.correction?.choice?.chosen?.method].filter(Boolean).join(', ')),
    ...beforeAndAfter(one).flatMap(([name, verdict, figures]) => [
      element('h3', {}, name), element('p', {}, verdict),
      table(['in percent', 'before', 'after'], figures.map(([title, before, after]) => [title, figure(before), figure(after)])),
    ]),
    ...(one.changed.length ? [
      element('h3', {}, `Predictions that changed: ${one.changed.length}`),
      table(['', 'image', 'label', 'artifact put on', 'before', 'after'], one.changed.slice(0, MOST_SHOWN).map((line) => [
        picture(line.row, { side: 64, alt: '' }), line.name, line.label, line.artifact ? 'yes' : 'no', line.before, line.after,
      ])),
    ] : []),
    ...one.unread.map((text) => element('p', { class: 'soft' }, `not read: ${text}`)),
  ))
  const none = element('p', { class: 'soft' }, 'This run has no correction: klarsicht audit clean makes one.')
  place.replaceChildren(element('div', { class: 'scrolls', tabIndex: 0, role: 'region', aria: { label: 'Corrections' } }, element('h1', {}, 'Corrections, before and after'), ...(cards.length ? cards : [none])))
  return { scrolls: true }
}
