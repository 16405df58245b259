// Corrections before and after: the figures of each, and the images whose prediction changed.

import { element, picture } from './elements.js'
import { read } from './requests.js'

const MOST_SHOWN = 300 // images of a correction in its table

const TITLES = {
  accuracy: 'accuracy, clean images', affected: 'accuracy, clean images of the class', worst: 'accuracy, worst group',
  under: 'accuracy of others under the artifact', flips: 'flips to the class under the artifact', rise: 'rise of the logit by the artifact, in logits',
  harm: 'points lost, clean images', harm_affected: 'points lost, clean images of the class',
  harm_elsewhere: 'points lost, without the class that loses most', turned: 'other images turned into the class by the artifact',
  member_fall: 'fall of the logit in images with the artifact, in logits',
}

/** "12.3 (10.1 to 14.9)" in percent, of an interval; of the rise in logits. Where the cell is narrow, the interval, which
 *  never breaks, stands below the value. */
function figure(name, value) {
  if (!value) return ''
  const [scale, digits] = name === 'rise' || name === 'member_fall' ? [1, 2] : [100, 1]
  const [at, low, high] = [value.value, value.low, value.high].map((one) => (scale * one).toFixed(digits).replace('-', '−'))
  return element('span', { class: 'figure' }, `${at} `, element('span', { class: 'range' }, `(${low} to ${high})`))
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
  if (found.correction?.shown?.before) {
    const { before, after, verdict } = found.correction.shown
    return [[found.name, verdict ?? '', figuresOf(before, after)]]
  }
  return []
}

/** Accuracy of the groups of a shortcut, on each kind of images that was shown. */
function groupTables(found) {
  const shown = found.evaluation?.groups ?? found.correction?.surroundings?.groups ?? []
  return shown.flatMap(({ kind, before, after }) => [
    element('h3', {}, `Groups: ${kind}`),
    table(['class', 'surroundings or group', 'right before, percent (95\u00a0%)', 'after'], before.groups.map((one, i) => [one.label, one.side, figure('right', one.right), figure('right', after.groups[i].right)])),
  ])
}

export async function showCorrections(place) {
  const found = await read('/api/corrections')
  const cards = found.map((one) => element(
    'section', { class: 'card' },
    element('h2', {}, one.name),
    element('p', { class: 'soft' }, [one.correction?.class, one.correction?.choice?.chosen?.method].filter(Boolean).join(', ')),
    ...beforeAndAfter(one).flatMap(([name, verdict, figures]) => [
      element('h3', {}, name), element('p', {}, verdict),
      table(['percent (95\u00a0%)', 'before', 'after'], figures.map(([title, before, after]) => [TITLES[title] ?? title, figure(title, before), figure(title, after)])),
    ]),
    ...(one.correction?.surroundings ? [element('p', {}, one.evaluation?.verdict ?? one.correction.surroundings.verdict)] : []), ...groupTables(one),
    ...(one.changed.length ? [
      element('h3', {}, `Predictions that changed: ${one.changed.length}`),
      table(['image', 'name', 'label', 'artifact put on', 'before', 'after'], one.changed.slice(0, MOST_SHOWN).map((line) => [
        picture(line.row, { side: 64, alt: '' }), line.name, line.label, line.artifact ? 'yes' : 'no', line.before, line.after,
      ])),
    ] : []),
    ...one.unread.map((text) => element('p', { class: 'soft' }, `not read: ${text}`)),
  ))
  const none = element('p', { class: 'soft' }, 'This run has no correction: klarsicht audit clean makes one.')
  place.replaceChildren(element('div', { class: 'scrolls', tabIndex: 0, role: 'region', aria: { label: 'Corrections' } }, element('h1', {}, 'Corrections, before and after'), ...(cards.length ? cards : [none])))
  return { scrolls: true }
}
