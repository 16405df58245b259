// Alarms of this run beside those of an earlier one: new, gone, the same.

import { element, picture } from './elements.js'
import { read } from './requests.js'

const HEADINGS = { new: 'New', gone: 'Gone', same: 'The same' }

function alarmCard(alarm) {
  const name = alarm.target === null ? alarm.subject : element('a', { href: `#/class/${alarm.target}` }, alarm.subject)
  const count = alarm.images ? `, ${alarm.images} ${alarm.images === 1 ? 'image' : 'images'}` : ''
  const accepted = alarm.accepted_by ? `, accepted by ${alarm.accepted_by}` : ''
  return element(
    'section', { class: 'card' },
    element('h3', {}, name), element('p', { class: 'soft' }, `${alarm.cause}${count}${accepted}`),
    alarm.rows.length ? element('div', { class: 'strip' }, ...alarm.rows.map((row) => picture(row, { side: 96, alt: `image ${row}` }))) : null,
    element('p', {}, alarm.message),
  )
}

export async function showComparison(place) {
  const found = await read('/api/comparison')
  const lists = Object.entries(HEADINGS).filter(([state]) => found[state].length)
  const content = [
    element('h1', {}, 'Compared with an earlier run'),
    element('p', {}, found.sentence),
    found.before ? element('p', { class: 'soft' }, `Earlier run: ${found.before}`) : null,
    found.gone.some((alarm) => alarm.rows.length) ? element('p', { class: 'soft' }, 'Images of findings that are gone are shown as this run has them.') : null,
    ...lists.flatMap(([state, heading]) => [element('h2', { class: 'part' }, `${heading}: ${found[state].length}`), ...found[state].map(alarmCard)]),
  ]
  place.replaceChildren(element('div', { class: 'scrolls', tabIndex: 0, role: 'region', aria: { label: 'Comparison' } }, ...content.filter(Boolean)))
  return { scrolls: true }
}
