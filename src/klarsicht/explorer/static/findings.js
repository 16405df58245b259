// Artifacts that a person named, each with all classes that carry it, and undecided classes that seem to share one.

import { undo, writeDecision } from './classes.js'
import { element, picture } from './elements.js'
import { read, record, saved } from './requests.js'

const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`
const cosine = (value) => value.toFixed(2)

const MOST_NAMED = 12 // classes of a finding that are named before the rest is folded
const classLinks = (classes) => classes.flatMap(([target, name, count], i) => [i ? ', ' : '', element('a', { href: `#/class/${target}` }, name), ` (${count})`])
const classList = (classes) => [
  element('p', {}, ...classLinks(classes.slice(0, MOST_NAMED))),
  classes.length > MOST_NAMED ? element('details', {}, element('summary', {}, `${classes.length - MOST_NAMED} more`), element('p', {}, ...classLinks(classes.slice(MOST_NAMED)))) : null,
]
const strip = (finding) => element('div', { class: 'strip' }, ...finding.first.map((row) => picture(row, { side: 96, alt: `image ${row}` })))
const size = (finding) => `${plural(finding.images, 'image', 'images')} of ${plural(finding.classes.length, 'class', 'classes')}`

function decidedCard(finding) {
  const alike = finding.alike.length ? element('p', {}, 'Undecided, and seems to carry the same: ', ...classLinks(finding.alike)) : null
  return element(
    'section', { class: 'card' },
    element('h2', {}, finding.artifact || `without a name, in ${finding.classes[0][1]}`),
    element('p', { class: 'soft' }, size(finding)), strip(finding), ...classList(finding.classes), alike,
  )
}

function proposedCard(finding, number, redraw) {
  const name = element('input', { maxLength: 200, placeholder: 'Name of the artifact', aria: { label: `Name of the artifact of proposal ${number}` } })
  const decide = async (decision) => {
    const named = decision === 'artifact' && name.value ? { artifact: name.value } : {}
    await record(async () => {
      for (const [target] of finding.classes) await writeDecision({ target, decision, ...named })
    })
    await redraw()
  }
  const button = (decision, text) => element('button', { type: 'button', aria: { label: `${text}: proposal ${number}` }, onclick: () => decide(decision) }, text)
  return element(
    'section', { class: 'card proposed' },
    element('h2', {}, `Seems to be one artifact in ${finding.classes.length} classes`),
    element('p', { class: 'soft' }, `Undecided; ${size(finding)}, likeness ${cosine(finding.likeness)}`),
    strip(finding), ...classList(finding.classes),
    saved ? null : element('div', { class: 'controls' }, name, button('artifact', 'All of them carry it'), button('legitimate', 'It belongs to all of them')),
  )
}

export async function showFindings(place) {
  const draw = async () => {
    const found = await read('/api/findings')
    const none = element('p', { class: 'soft' }, 'No class is decided to carry an artifact yet. Classes whose artifacts have one name are one finding.')
    const proposed = found.proposed.length ? [
      element('h2', { class: 'part' }, 'Proposed'),
      element('p', { class: 'soft' }, 'Nobody decided these. Suspect images of these classes differ from the other images of their class in the same way, by the model\'s features (mean cosine 0.65 or more): look whether they share one thing. To decide on single classes, open them.'),
      ...found.proposed.map((finding, i) => proposedCard(finding, i + 1, draw)),
    ] : []
    const rest = found.alone ? element('p', { class: 'soft' }, `${plural(found.alone, 'undecided class resembles', 'undecided classes resemble')} no other.`) : null
    const why = found.why ? element('p', { class: 'soft' }, `Undecided classes are not compared: ${found.why}.`) : null
    const content = [element('h1', {}, 'Findings'), ...(found.decided.length ? found.decided.map(decidedCard) : [none]), ...proposed, rest, why]
    place.replaceChildren(element('div', { class: 'scrolls', tabIndex: 0, role: 'region', aria: { label: 'Findings' } }, ...content.filter(Boolean)))
  }
  await draw()
  return { scrolls: true, async key(event) { if (event.key === 'z' && (await undo())) await draw() } }
}
