// Artifacts that a person named, each with all classes that carry it.

import { element, picture } from './elements.js'
import { read } from './requests.js'

export async function showFindings(place) {
  const found = await read('/api/findings')
  const cards = found.map((finding) => element(
    'section', { class: 'card' },
    element('h2', {}, finding.artifact || `without a name, in ${finding.classes[0][1]}`),
    element('p', { class: 'soft' }, `${finding.images} images of ${finding.classes.length} class${finding.classes.length > 1 ? 'es' : ''}`),
    element('div', { class: 'strip' }, ...finding.first.map((row) => picture(row, { side: 96, alt: `image ${row}` }))),
    element('p', {}, ...finding.classes.flatMap(([target, name, count], i) => [i ? ', ' : '', element('a', { href: `#/class/${target}` }, name), ` (${count})`])),
  ))
  const none = element('p', { class: 'soft' }, 'No class is decided to carry an artifact yet. Classes whose artifacts have one name are one finding.')
  place.replaceChildren(element('div', { class: 'scrolls', tabIndex: 0, role: 'region', aria: { label: 'Findings' } }, element('h1', {}, 'Findings'), ...(cards.length ? cards : [none])))
  return { scrolls: true }
}
