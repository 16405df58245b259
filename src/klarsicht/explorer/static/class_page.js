// One class: its embedding, its images in two groups, and what a person decides about them.

import { decisionButtons, state, undo, decide, writeDecision, DECISIONS } from './classes.js'
import { drawing, element, effectInterval, menu, percent, probability, signed, unbroken } from './elements.js'
import { enlarge, kindMenus, makeGallery } from './gallery.js'
import { attempt, inTurn, read, readBytes, record, writeForPicture } from './requests.js'
import { Scatter } from './scatter.js'

const CLUSTER = 1, DETECTED = 2, DECIDED = 4, REMOVED = 8
// Okabe and Ito's colours, which people with colour deficiencies tell apart
const COLOURS = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66], [120, 94, 240], [128, 128, 128]]
const QUIET = [140, 150, 160], HOT = [204, 51, 38]
const WAITING = 250 // milliseconds after the last change before a mean is asked for
const MEAN_MAPS = 2000 // of so many images the server takes a mean at most
const MOST_ROWS = 80000 // of a request, which holds 1 MB at most

/** At most so many of some rows, at equal steps. */
const chooseEvenly = (rows, most) => (rows.length <= most ? rows : Array.from({ length: most }, (_, i) => rows[Math.floor((i * (rows.length - 1)) / (most - 1))]))

/** Columns of the points, see point_clouds.py. */
export function parse(buffer) {
  const view = new DataView(buffer)
  const magic = String.fromCharCode(...new Uint8Array(buffer, 0, 4))
  if (magic !== 'KSP1') throw new Error(`not points: ${magic}`)
  const n = view.getUint32(4, true)
  const d = view.getUint32(8, true)
  let at = 16
  const take = (kind, count) => {
    const found = new kind(buffer, at, count)
    at += 4 * count
    return found
  }
  const columns = Object.fromEntries(['rows', 'label', 'predicted', 'component'].map((name) => [name, take(Int32Array, n)]))
  return { n, d, ...columns, flags: take(Uint32Array, n), plane: take(Float32Array, d ? 2 * n : 0), vectors: take(Float32Array, n * d) }
}

/** What the members of a class are: decided by a person, found by a detector, or only a cluster. */
const memberName = ({ line, told }) => (typeof line.decided?.members === 'number' ? 'carry it' : told.by_detector ? 'detected' : 'suspect cluster')

/** What the points are coloured by: for each its title, and a function that gives one from the number of a point to a
 *  category, the names of the categories, and their colours. */
function colourings(page) {
  const { cloud, run } = page
  const of = (index) => run.names[index] ?? 'none'
  const byValue = (title, column, name) => [title, () => { // counted only where it is chosen: a class can have 100,000 points
    const counts = new Map()
    for (const value of column) counts.set(value, (counts.get(value) ?? 0) + 1)
    const common = [...counts].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length - 1).map(([value]) => value)
    const places = new Map(common.map((value, at) => [value, at]))
    const names = common.map(name)
    const rest = counts.size > names.length ? [...names, ...Array(COLOURS.length - 1 - names.length).fill(null), 'others'] : names
    return [(i) => places.get(column[i]) ?? COLOURS.length - 1, rest, COLOURS]
  }]
  return {
    member: ['artifact', () => [(i) => (page.members.has(cloud.rows[i]) ? 1 : 0), ['other images', memberName(page)], [QUIET, HOT]]],
    cluster: ['cluster', () => [(i) => (cloud.flags[i] & CLUSTER ? 1 : 0), ['other images', 'suspect cluster'], [QUIET, HOT]]],
    detector: ['detector', () => [(i) => (cloud.flags[i] & DETECTED ? 1 : 0), ['not detected', 'detected'], [QUIET, COLOURS[1]]]],
    decision: ['decision', () => [(i) => (page.removed(i) ? 2 : cloud.flags[i] & DECIDED ? 1 : 0), ['as found', 'decided', 'taken out'], [QUIET, HOT, COLOURS[0]]]],
    label: byValue('label', cloud.label, of),
    predicted: byValue('prediction', cloud.predicted, of),
    component: byValue('component', cloud.component, (c) => `component ${c + 1}`),
  }
}

/** The eigenvalues, with the largest gap between two of them. */
function eigenvalueChart({ eigenvalues, eigengap }) {
  if (!eigenvalues.length) return null
  const most = Math.max(...eigenvalues, 1e-9)
  const x = (i) => 12 + (i * 276) / Math.max(1, eigenvalues.length - 1)
  const y = (value) => 70 - (58 * value) / most
  const middle = eigengap ? (x(eigengap - 1) + x(eigengap)) / 2 : 0
  return element(
    'div', {}, element('h2', {}, 'Number of clusters'),
    element('p', { class: 'soft' }, 'Each point is an eigenvalue of the graph that joins similar images. Before the largest gap there is one for each cluster.'),
    drawing(
      'svg', { class: 'eigenvalues', viewBox: '0 0 300 90', role: 'img', 'aria-label': `Eigenvalues of the graph's Laplacian; the largest gap is after the ${eigengap}th` },
      drawing('line', { x1: 4, x2: 296, y1: 70, y2: 70 }),
      ...(eigengap ? [drawing('line', { class: 'gap', x1: middle, x2: middle, y1: 4, y2: 76 })] : []),
      ...eigenvalues.map((value, i) => drawing('circle', { cx: x(i), cy: y(value), r: 4 }, drawing('title', {}, document.createTextNode(`${i + 1}: ${value.toPrecision(4)}`)))),
      ...(eigengap ? [drawing('text', { x: Math.min(middle + 4, 210), y: 86 }, document.createTextNode(`gap after ${eigengap}: ${eigengap} cluster${eigengap > 1 ? 's' : ''}`))] : []),
    ),
  )
}

/** Groups that detectors saw and no verdict names: a sentence on each, and a button that shows its images. */
function seenGroups({ seen, not_tested }, show) {
  if (!seen?.length) return null
  return element(
    'section', { class: 'seen', aria: { label: 'Seen, not called' } }, element('h2', {}, 'Seen, not called'), element('p', { class: 'soft' }, not_tested),
    ...seen.map((group, i) => element('p', {}, group.headline, ' ', element('button', { type: 'button', onclick: () => show(i) }, 'Show'))),
  )
}

/** What a class can be recognised by: headlines, and the table of parts, those that matter first. */
function shortcutTable(found) {
  if (!found) return null
  const cells = (tag, texts) => element('tr', {}, ...texts.map((text) => element(tag, {}, unbroken(text))))
  return element(
    'section', { class: 'shortcuts', aria: { label: 'Shortcuts' } }, element('h2', {}, 'Shortcuts'),
    ...(found.headlines.length ? found.headlines : ['No part of the images is flagged.']).map((text) => element('p', {}, text)),
    element('details', {}, element('summary', {}, `All ${found.rows.length} parts`), element('div', { class: 'scrolled' }, element('table', {}, element('thead', {}, cells('th', found.headings)), element('tbody', {}, ...found.rows.map((row) => cells('td', row)))))),
    element('p', { class: 'soft' }, found.limits),
  )
}

/** Show the page of a class; returns what keys do and what ends it. */
export async function showClassPage(place, target, run, listed) {
  const [told, buffer] = await Promise.all([read(`/api/classes/${target}`), readBytes(`/api/classes/${target}/points`), listed])
  const line = state.classes.find((one) => one.target === target) ?? told
  const page = {
    target, run, told, line, cloud: parse(buffer), kind: run.overlay ? 'overlay' : 'image', colour: 'member', axes: 'plane', metric: told.metrics[0] ?? '',
    members: new Set(told.members), windows: told.windows, masks: [], source: '', chosen: new Set(), groups: [], selection: [],
    overlays: new Set(told.overlays),
    hasOverlay: (row) => run.overlay || page.overlays.has(row),
    removed: (index) => Boolean(page.cloud.flags[index] & REMOVED),
    hasWindow: (row) => page.windows > 0 && Boolean(page.cloud.flags[page.indexOf(row)] & DETECTED),
    indexOf: (row) => page.at.get(row),
    point(index, moves) { page.scatter?.show(index); if (moves) page.scatter?.canvas.focus() },
    enlarge: (index, name) => enlarge(page, index, (from, by) => { const items = page.groups.find((one) => one.name === name)?.grid.items ?? []; return items[items.indexOf(from) + by] }),
  }
  page.at = new Map(Array.from(page.cloud.rows, (row, i) => [row, i]))

  // The plot
  const scatter = page.cloud.d ? new Scatter({
    label: `Embedding of ${page.cloud.n} images of ${line.name}`,
    picked: (index) => { page.point(index); page.enlarge(index, 'A') },
    lassoed: (indices) => { page.selection = indices; page.groups[0].show('selection', indices); colourPoints(); hint() },
    pointed: (index) => hint(index),
  }) : undefined
  page.scatter = scatter
  const legend = element('ul', { class: 'legend' })
  const hintText = element('div', { class: 'hint', aria: { hidden: true } })
  scatter?.root.append(hintText)
  const hint = (index) => { hintText.textContent = index === undefined ? `${page.cloud.n} images${page.selection.length ? `, ${page.selection.length} selected` : ''}` : `image ${page.cloud.rows[index]}` }
  const colourPoints = () => {
    if (!scatter) return
    const [category, names, palette] = colourings(page)[page.colour][1]()
    const { n } = page.cloud
    const selected = new Uint8Array(n)
    for (const index of page.selection) selected[index] = 1
    const colours = new Uint8Array(4 * n)
    const sizes = new Float32Array(n)
    const base = (n > 20000 ? 3 : n > 2000 ? 4 : 7) * Math.min(devicePixelRatio || 1, 2)
    const some = page.selection.length > 0
    for (let i = 0; i < n; i++) {
      const colour = palette[category(i)]
      for (let k = 0; k < 3; k++) colours[4 * i + k] = colour[k]
      colours[4 * i + 3] = some ? (selected[i] ? 255 : 60) : colour === QUIET ? 150 : 225
      sizes[i] = selected[i] || colour === HOT ? base * 1.3 : base
    }
    scatter.setMarks(colours, sizes)
    legend.replaceChildren(...names.map((name, i) => name === null || name === undefined ? null : element(
      'li', {}, drawing('svg', { viewBox: '0 0 10 10', 'aria-hidden': true }, drawing('circle', { cx: 5, cy: 5, r: 5, fill: `rgb(${palette[i].join()})` })), name,
    )).filter(Boolean))
  }
  const placePoints = () => {
    if (!scatter) return
    const { n, d, vectors, plane } = page.cloud
    if (page.axes === 'plane') scatter.setPoints(plane)
    else {
      const [a, b] = page.axes.split('-').map(Number)
      const points = new Float32Array(2 * n)
      for (let i = 0; i < n; i++) { points[2 * i] = vectors[i * d + a]; points[2 * i + 1] = vectors[i * d + b] }
      scatter.setPoints(points)
    }
    colourPoints()
    hint()
  }
  const axes = [['plane', 'principal axes'], ...Array.from({ length: Math.max(0, page.cloud.d - 1) }, (_, i) => [`${i}-${i + 1}`, `eigenvectors ${i + 1}, ${i + 2}`])]
  const controls = element('div', { class: 'controls' })
  const drawControls = () => controls.replaceChildren(...[
    page.told.metrics.length > 1 ? menu('metric', page.told.metrics.map((one) => [one, one]), page.metric, changeMetric) : null,
    menu('axes', axes, page.axes, (value) => { page.axes = value; placePoints() }),
    menu('colour', Object.entries(colourings(page)).map(([key, [text]]) => [key, text]), page.colour, (value) => { page.colour = value; colourPoints() }),
    lassoButton, element('button', { type: 'button', onclick: () => scatter.reset() }, 'Whole'),
  ].filter(Boolean))
  const lassoButton = element('button', { type: 'button', title: 'Draw around points; off: drag moves the plot (l)', aria: { pressed: true }, onclick: () => toggleLasso() }, 'Lasso')
  const toggleLasso = () => {
    if (!scatter) return
    scatter.lassoing = !scatter.lassoing
    lassoButton.setAttribute('aria-pressed', scatter.lassoing)
  }
  const chart = element('div')
  const changeMetric = async (metric) => {
    const found = await attempt(() => Promise.all([read(`/api/classes/${target}?metric=${metric}`), readBytes(`/api/classes/${target}/points?metric=${metric}`)]))
    if (!found) return
    Object.assign(page, { metric, cloud: parse(found[1]), selection: [] })
    page.told = { ...page.told, eigenvalues: found[0].eigenvalues, eigengap: found[0].eigengap }
    page.at = new Map(Array.from(page.cloud.rows, (row, i) => [row, i]))
    if (page.axes !== 'plane' && Number(page.axes.split('-')[1]) >= page.cloud.d) page.axes = 'plane'
    chart.replaceChildren(...[eigenvalueChart(page.told)].filter(Boolean))
    drawControls()
    placePoints()
    for (const group of page.groups) group.show(group.shows)
  }

  // Groups of images
  const all = () => Array.from({ length: page.cloud.n }, (_, i) => i)
  const SETS = {
    members: [() => memberName(page), () => all().filter((i) => page.members.has(page.cloud.rows[i]))],
    others: ['other images', () => all().filter((i) => !page.members.has(page.cloud.rows[i]))],
    selection: ['selection', () => page.selection],
    removed: ['taken out', () => all().filter(page.removed)],
    wrong: ['predicted otherwise', () => all().filter((i) => page.cloud.predicted[i] !== target)],
    ...Object.fromEntries((told.seen ?? []).map(({ rows }, i) => [`seen${i}`, [`seen, not called ${i + 1}`, () => rows.map(page.indexOf).filter((at) => at !== undefined)]])),
  }
  const makeGroup = (name, shows) => {
    const grid = makeGallery(name, page)
    const mean = element('img', { alt: '', hidden: true, title: 'mean relevance' })
    const count = element('span', { class: 'soft', role: 'status' })
    const pick = element('span')
    const group = { name, grid, shows, items: [] }
    const askMean = () => {
      clearTimeout(group.waiting)
      mean.hidden = true
      if (!run.maps || run.saved || !group.items.length) return
      group.waiting = setTimeout(async () => {
        const rows = chooseEvenly(group.items.map((i) => page.cloud.rows[i]).sort((a, b) => a - b), MEAN_MAPS)
        const found = await attempt(() => writeForPicture('/api/mean', { rows, side: 112 }))
        if (!found) return
        URL.revokeObjectURL(mean.src)
        mean.src = URL.createObjectURL(found.blob)
        mean.alt = `mean relevance of ${found.count} images of group ${name}`
        mean.hidden = false
      }, WAITING)
    }
    group.show = (shows, items) => {
      group.shows = shows
      group.items = items ?? SETS[shows][1]()
      grid.set(group.items)
      count.textContent = `${group.items.length} images`
      pick.replaceChildren(menu(`${name}:`, Object.entries(SETS).map(([key, [text]]) => [key, typeof text === 'function' ? text() : text]), shows, (value) => group.show(value)))
      askMean()
    }
    const change = (adds) => page.change(group.items.map((i) => page.cloud.rows[i]), adds)
    group.root = element(
      'section', { class: 'group', aria: { label: `Group ${name}` } },
      element(
        'div', { class: 'group-head' }, mean, pick, count,
        ...(run.saved ? [] : [
          element('button', { type: 'button', onclick: () => change(true), title: 'All images of this group carry the artifact' }, 'Add all'),
          element('button', { type: 'button', onclick: () => change(false), title: 'No image of this group carries the artifact' }, 'Take all out'),
        ]),
      ),
      grid.root,
    )
    return group
  }
  page.groups = [makeGroup('A', 'members'), makeGroup('B', 'others')]

  // Decisions
  page.change = async (rows, adds) => {
    const changed = await record(async () => {
      const others = rows.filter((row) => page.members.has(row) !== adds)
      for (let at = 0; at < others.length; at += MOST_ROWS) {
        const part = others.slice(at, at + MOST_ROWS)
        line.decided = (await writeDecision({ target, [adds ? 'add' : 'remove']: part })).decided
        for (const row of part) page.members[adds ? 'add' : 'delete'](row)
      }
      return others.length
    })
    if (changed) await reread()
  }
  const reread = async () => {
    await attempt(() => inTurn(readAgain))
    await askMasks()
  }
  const readAgain = async () => {
    const [now, points] = await Promise.all([read(`/api/classes/${target}`), readBytes(`/api/classes/${target}/points?metric=${page.metric}`)])
    page.members = new Set(now.members)
    page.cloud = parse(points)
    line.decided = now.decided
    for (const group of page.groups) group.show(group.shows, group.shows === 'selection' ? group.items : undefined)
    colourPoints()
    drawDecision()
  }
  /** Ask which masks there are, after the first picture: of a large class the server reads many maps for them. */
  const askMasks = async () => {
    const found = await attempt(() => read(`/api/classes/${target}/masks`))
    if (!found || String(page.masks) === String(found.masks)) return
    page.masks = found.masks
    const gone = page.source && !page.masks.includes(page.source)
    if (gone) page.source = ''
    drawKinds()
    if (gone) for (const group of page.groups) group.grid.set(group.items)
  }
  const decision = element('div')
  let drawn = '' // the decision that the page shows
  const name = element('input', { maxLength: 200, readOnly: Boolean(run.saved), aria: { label: 'Name of the artifact' } })
  name.setAttribute('list', 'artifact-names')
  const note = element('textarea', { maxLength: 4000, readOnly: Boolean(run.saved), aria: { label: 'Note' } })
  const names = element('datalist', { id: 'artifact-names' })
  const save = async (field, input) => {
    const value = input.value
    const saved = await record(async () => {
      if (value === (line.decided?.[field] ?? '')) return false
      line.decided = (await writeDecision({ target, [field]: value })).decided
      return true
    })
    if (saved) drawDecision()
  }
  name.addEventListener('change', () => save('artifact', name))
  note.addEventListener('change', () => save('note', note))
  const drawDecision = () => {
    const decided = line.decided
    drawn = JSON.stringify(decided)
    if (document.activeElement !== name) name.value = decided?.artifact ?? ''
    if (document.activeElement !== note) note.value = decided?.note ?? ''
    const known = new Set(state.classes.map((one) => one.decided?.artifact).filter(Boolean))
    names.replaceChildren(...[...known].map((value) => element('option', { value })))
    const when = decided ? `${decided.author}, ${decided.time.slice(0, 16).replace('T', ' ')}${decided.members === null ? '' : `; ${decided.members} images`}${decided.removed ? `, ${decided.removed} taken out` : ''}` : 'nobody decided yet'
    decision.replaceChildren(decisionButtons(line, reread), element('p', { class: 'soft' }, when))
  }
  const link = (file, text) => element('a', { href: `/api/classes/${target}/${file}${page.source && file !== 'members.txt' ? `?source=${page.source}` : ''}`, download: '' }, text)
  const downloads = element('p')
  const drawDownloads = () => run.saved || downloads.replaceChildren('Save: ', link('members.txt', 'members.txt'), ' · ', ...(page.masks.length ? [link('masks.zip', 'masks'), ' · '] : []), link('coco.json', 'COCO'))
  const facts = [
    [state.headings.p, probability(line.p)], [line.prevalence === null ? 'suspect cluster' : 'prevalence', line.prevalence === null ? `${line.size} of ${line.n} images, no artifact` : `${percent(line.prevalence)} (${line.size} of ${line.n})`], ['detector', line.sign], ['like', line.resembles.join(' or ')], ['metric', line.metric],
    ['z', line.z === null ? '' : line.z.toFixed(2)], ['separation (Fisher)', line.tau === null ? '' : line.tau.toFixed(2)],
    [state.headings.shift, line.shift === null ? '' : `${signed(line.shift)} (${signed(line.low)} to ${signed(line.high)})`],
  ].filter(([, value]) => value)
  const side = element(
    'div', { class: 'side' },
    element('div', { class: 'heading' }, element('h1', {}, line.name), element('a', { href: '#/' }, 'all classes')),
    element('p', {}, element('span', { class: `kind ${line.kind}` }, line.label)),
    line.verdict === line.label ? null : element('p', { class: 'headline' }, line.verdict),
    ...line.next_steps.map(([advice, command]) => element('p', { class: 'soft' }, `Next: ${advice}: `, element('code', {}, command))),
    seenGroups(told, (i) => page.groups[0].show(`seen${i}`)),
    ...(told.names ?? []).map((sentence) => element('p', { class: 'soft' }, sentence)),
    shortcutTable(told.shortcuts),
    decision,
    scatter ? scatter.root : element('p', { class: 'soft' }, 'This run stores no embedding of this class: it screened all classes, and keeps that of the first suspects.'),
    ...(scatter ? [controls, legend] : []),
    element('label', { class: 'field' }, 'Name of the artifact', name), names, element('label', { class: 'field' }, 'Note', note),
    downloads,
    chart,
    element('h2', {}, 'Figures'), line.shift === null ? null : effectInterval(line, state.most),
    element('dl', { class: 'facts' }, ...facts.flatMap(([title, value]) => [element('dt', {}, title), element('dd', {}, value)])),
  )
  const kinds = element('div', { class: 'bar' })
  const told_of_maps = told.hints && run.maps ? ' Relevance maps are hints only: this network absorbs nearly all relevance on its way to the pixels.' : ''
  const drawKinds = () => {
    kinds.replaceChildren(...kindMenus(page, () => { drawKinds(); for (const group of page.groups) group.grid.set(group.items) }), element('span', { class: 'soft' }, `Red frame: image with the artifact. Click to enlarge.${told_of_maps}`))
    drawDownloads()
  }
  drawKinds()
  place.replaceChildren(element('div', { class: 'class-page' }, side, element('div', { class: 'content' }, kinds, element('div', { class: 'groups' }, ...page.groups.map((group) => group.root)))))
  chart.replaceChildren(...[eigenvalueChart(told)].filter(Boolean))
  drawControls()
  placePoints()
  for (const group of page.groups) group.show(group.shows)
  drawDecision()
  askMasks()
  place.focus()
  const recolour = () => colourPoints()
  const scheme = matchMedia('(prefers-color-scheme: dark)')
  scheme.addEventListener('change', recolour)
  const step = (by) => {
    const order = state.shown.length ? state.shown : state.classes
    const next = order[order.findIndex((one) => one.target === target) + by]
    if (next) { state.current = order.indexOf(next); location.hash = `#/class/${next.target}` }
  }
  return {
    scrolls: true,
    page,
    redraw() { if (JSON.stringify(line.decided) !== drawn) reread() }, // others decided on this class
    end() { scheme.removeEventListener('change', recolour); scatter?.end(); document.getElementById('picture').close() },
    async key(event) {
      if (event.key === 'j') step(1)
      else if (event.key === 'k') step(-1)
      else if (event.key === 'l') toggleLasso()
      else if (event.key === 'a' || event.key === 'b') page.groups[event.key === 'a' ? 0 : 1].show('selection', page.selection)
      else if (event.key === 'Escape') { page.selection = []; page.groups[0].show('members'); page.groups[1].show('others'); colourPoints(); hint() }
      else if (event.key === 'z') { if (await undo()) await reread() }
      else {
        const found = DECISIONS.find(([, , key]) => key === event.key)
        if (found && (await decide(line, found[0]))) await reread()
      }
    },
  }
}
