// Images that do not follow the surroundings of their class: each as it is, and which part of it is its own.

import { element, picture } from './elements.js'
import { read } from './requests.js'

const SIDE = 128

/** An image as it is, and again with what it shares with others darkened. */
const pair = (row, text) => element(
  'figure', { class: 'exception' },
  element('div', {}, picture(row, { side: SIDE, alt: `image ${row}` }), picture(row, { kind: 'own', side: SIDE, alt: `own places of image ${row}` })),
  element('figcaption', {}, ...text),
)

function classCard(one) {
  const caption = ({ name, side, margin }) => [name, element('br'), element('span', { class: 'soft' }, `surroundings of ${side}, score ${margin.toFixed(2).replace('-', '−')}`)]
  const more = one.count > one.exceptions.length ? element('p', { class: 'soft' }, `The first ${one.exceptions.length} of ${one.count}; all are in exceptions.csv.`) : null
  return element(
    'section', { class: 'card' },
    element('h2', {}, element('a', { href: `#/class/${one.target}` }, one.name)), element('p', {}, one.sentence),
    one.exceptions.length ? element('h3', {}, 'Exceptions, the clearest first') : null,
    element('div', { class: 'pairs' }, ...one.exceptions.map((image) => pair(image.row, caption(image)))), more,
    one.usual.length ? element('h3', {}, 'As most of the class') : null,
    element('div', { class: 'pairs' }, ...one.usual.map((row) => pair(row, [`image ${row}`]))),
  )
}

export async function showExceptions(place) {
  const found = await read('/api/exceptions')
  const none = found.sentences.length ? null : element('p', { class: 'soft' }, 'The surroundings of this run were not examined: klarsicht audit shortcuts does so, with 100 images of each class or more.')
  const how = found.classes.length ? element('p', { class: 'soft' }, 'Left: the image. Right: bright is what is its own, dark is what it shares with other images. The score is the log-odds of its class by its places, in nats; the lower, the clearer the exception.') : null
  const content = [element('h1', {}, 'Exceptions to shared surroundings'), none, ...found.sentences.map((text) => element('p', {}, text)), how, ...found.classes.map(classCard)]
  place.replaceChildren(element('div', { class: 'scrolls', tabIndex: 0, role: 'region', aria: { label: 'Exceptions' } }, ...content.filter(Boolean)))
  return { scrolls: true }
}
