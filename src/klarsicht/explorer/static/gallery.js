// Pictures of images: a grid of them, and one enlarged.

import { colourBar, element, menu, picture, pictureAddress } from './elements.js'
import { attempt, read, saved } from './requests.js'
import { VirtualGrid } from './virtual.js'

const known = new Map() // what the server told of an image, by row
const MOST_KNOWN = 20000

/** Names, labels and predictions of some rows, asked for once. */
export async function describe(rows) {
  const asked = rows.filter((row) => !known.has(row)).slice(0, 200)
  if (asked.length) {
    if (known.size > MOST_KNOWN) known.clear()
    for (const one of (await attempt(() => read(`/api/images?rows=${asked.join(',')}`))) ?? []) known.set(one.row, one)
  }
  return rows.map((row) => known.get(row))
}

/** A grid of the images of a group. `page` tells what a cell shows and what a click does. */
export function makeGallery(label, page) {
  return new VirtualGrid({
    label, side: 132,
    make(index) {
      const row = page.cloud.rows[index]
      const shown = page.kind === 'masked' && !page.members.has(row) ? element('span', { class: 'broken' }, 'without it') : picture(row, { kind: page.kind === 'overlay' && !page.hasOverlay(row) ? 'image' : page.kind, side: 128, target: page.target, source: page.source, alt: `image ${row}` })
      const states = [page.members.has(row) ? 'member' : '', page.removed(index) ? 'removed' : '']
      return element(
        'figure', { class: `cell ${states.join(' ')}`, onpointerenter: () => page.point(index) },
        element('button', {
          type: 'button', aria: { label: `Enlarge image ${row}${page.members.has(row) ? ', with the artifact' : ''}` }, onclick: () => page.enlarge(index, label),
        }, shown),
      )
    },
  })
}

const KINDS = { image: 'image', overlay: 'relevance over what the model sees', relevance: 'relevance', window: "detector's window", masked: 'mask' }
const COLOURED = ['overlay', 'relevance'] // kinds whose colours are relevance
const SOURCES = { place: 'mask, saved by audit clean', relevance: 'mask by relevance', window: "mask by the detector's window" }

/** Show one image large, with what can be drawn of it, and let a person say whether it carries the artifact. */
export async function enlarge(page, index, step) {
  const dialog = document.getElementById('picture')
  const row = page.cloud.rows[index]
  const [told] = await describe([row])
  const kinds = ['image', ...(page.hasOverlay(row) ? ['overlay'] : []), ...(page.run.maps ? ['relevance'] : []), ...(page.hasWindow(row) ? ['window'] : []), ...(page.masks.length && page.members.has(row) ? ['masked'] : [])]
  const figures = kinds.map((kind) => {
    const image = element('img', { src: pictureAddress(row, kind, kind === 'relevance' ? 256 : 512, page.target, page.source), alt: KINDS[kind] })
    image.addEventListener('error', () => image.replaceWith(element('p', { class: 'broken' }, 'cannot be shown')))
    const bar = COLOURED.includes(kind) && told?.bound ? element('div', {}, colourBar(kind, told.bound)) : null
    return element('figure', { data: { kind } }, image, element('figcaption', {}, KINDS[kind], bar))
  })
  const pair = element('div', { class: 'pair' }, ...figures)
  const carries = page.members.has(row)
  const button = (text, act, properties = {}) => element('button', { type: 'button', onclick: act, ...properties }, text)
  const move = (by) => { const next = step(index, by); if (next !== undefined) enlarge(page, next, step) }
  dialog.onkeydown = (event) => {
    if (event.key === 'j' || event.key === 'ArrowRight') move(1)
    if (event.key === 'k' || event.key === 'ArrowLeft') move(-1)
  }
  dialog.onclose = () => page.point(index)
  dialog.replaceChildren(
    element('h2', { id: 'picture-title' }, told?.name ?? `image ${row}`),
    element('p', { class: 'soft' }, told ? `label ${told.label}; predicted ${told.predicted || 'nothing'}` : ''),
    element(
      'div', { class: 'controls' }, button('Previous', () => move(-1)), button('Next', () => move(1)),
      ...(saved ? [] : [button(carries ? 'Take out of the artifact' : 'Add to the artifact', async () => { await page.change([row], !carries); enlarge(page, index, step) })]),
      button('Show in the plot', () => { dialog.close(); page.point(index, true) }), button('Close', () => dialog.close()),
    ),
    pair,
  )
  if (!dialog.open) dialog.showModal()
}

/** Menus of what the cells of the galleries show; of masks of several sources, which ones. */
export function kindMenus(page, changed) {
  const kinds = [['image', 'images'], ...(page.run.overlay || page.overlays.size ? [['overlay', 'overlay']] : []), ...(page.run.maps ? [['relevance', 'relevance']] : []), ...(page.windows ? [['window', "detector's window"]] : []), ...(page.masks.length ? [['masked', 'masks']] : [])]
  const sources = page.masks.length > 1 ? [menu('masks', [['', 'as found'], ...page.masks.map((source) => [source, SOURCES[source]])], page.source, (value) => { page.source = value; changed() })] : []
  const bar = COLOURED.includes(page.kind) ? [colourBar(page.kind), element('span', { class: 'soft' }, 'Each picture has its own scale.')] : []
  return [menu('show', kinds, page.kind, (value) => { page.kind = value; changed() }), ...sources, ...bar]
}
