// The strategies of a denoiser: their table, their points in the plane, pixels of one, and their map over each picture.

import { element, percent, probability } from './elements.js'
import { attempt, read, readBytes } from './requests.js'

const SIDE = 420 // of the plot, and least side of a picture, in pixels
const MARGIN = 14
const CROP = 48 // pixels of a picture around a point
const CROPS = 24
const OPACITY = 0.6
const COLUMNS = [
  ['reference', 'reference share'], ['evenness', 'evenness'], ['reach', 'reach'], ['elongation', 'elongation'],
  ['disagreement', 'disagreement'], ['change', 'change'],
]
const place = document.getElementById('page')
const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`
let chosen // a strategy, or undefined

/** Draw the points in the plane; those of other strategies than the chosen one are faint. */
function drawPlane(canvas, audit) {
  const pen = canvas.getContext('2d')
  const { x, y, strategy } = audit.points
  pen.clearRect(0, 0, SIDE, SIDE)
  strategy.forEach((one, i) => {
    pen.globalAlpha = chosen === undefined || chosen === one ? 0.9 : 0.12
    pen.fillStyle = css(audit.colours[one])
    pen.beginPath()
    pen.arc(...inPlane(audit, x[i], y[i]), 3, 0, 2 * Math.PI)
    pen.fill()
  })
}

function inPlane({ points }, x, y) {
  const scaled = (value, all) => {
    const least = Math.min(...all)
    return MARGIN + (value - least) / (Math.max(...all) - least || 1) * (SIDE - 2 * MARGIN)
  }
  return [scaled(x, points.x), scaled(y, points.y)]
}

/** Draw a picture in grey under its map; of a chosen strategy only its own points are coloured. */
function drawMap(canvas, { picture, labels, shape: [rows, columns] }, colours) {
  const pen = canvas.getContext('2d')
  const map = new ImageData(columns, rows)
  labels.forEach((one, i) => {
    map.data.set([...colours[one], chosen === undefined || chosen === one ? 255 * OPACITY : 0], 4 * i)
  })
  const small = new OffscreenCanvas(columns, rows)
  small.getContext('2d').putImageData(map, 0, 0)
  pen.filter = 'grayscale(1)'
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height)
  pen.filter = 'none'
  pen.imageSmoothingEnabled = false
  pen.drawImage(small, 0, 0, canvas.width, canvas.height)
}

/** Show pieces of the pictures around drawn points of the chosen strategy, or of all. */
function drawCrops(list, audit, bursts) {
  const { burst, row, column, strategy } = audit.points
  const some = strategy.map((_, i) => i).filter((i) => chosen === undefined || strategy[i] === chosen)
  const shown = some.filter((_, k) => k % Math.ceil(some.length / CROPS) === 0)
  list.replaceChildren(...shown.map((i) => {
    const { picture, shape: [rows, columns] } = bursts[burst[i]]
    const canvas = element('canvas', { width: 2 * CROP, height: 2 * CROP, title: audit.strategies[strategy[i]].name })
    canvas.style.outline = `3px solid ${css(audit.colours[strategy[i]])}`
    const x = (column[i] + 0.5) / columns * picture.width
    const y = (row[i] + 0.5) / rows * picture.height
    canvas.getContext('2d').drawImage(picture, x - CROP / 2, y - CROP / 2, CROP, CROP, 0, 0, 2 * CROP, 2 * CROP)
    return canvas
  }))
}

function tableOf(audit, choose) {
  const cells = (one) => [
    percent(one.share), ...COLUMNS.map(([, name]) => one.median[name].toFixed(2)), Math.exp(one.error).toFixed(2), probability(one.p),
  ]
  const headings = ['strategy', 'share', ...COLUMNS.map(([heading]) => heading), 'error', 'p']
  const rows = audit.strategies.map((one, number) => {
    const button = element('button', { type: 'button', aria: { pressed: 'false' }, onclick: () => choose(number) }, one.name)
    button.style.borderLeft = `1rem solid ${css(audit.colours[number])}`
    return element('tr', {}, element('th', { scope: 'row' }, button), ...cells(one).map((text) => element('td', {}, text)))
  })
  return element(
    'table', {}, element('thead', {}, element('tr', {}, ...headings.map((text) => element('th', { scope: 'col' }, text)))), element('tbody', {}, ...rows),
  )
}

async function loadBurst(audit, number) {
  const picture = new Image()
  picture.src = `/api/bursts/${number}/picture`
  const labels = new Uint8Array(await readBytes(`/api/bursts/${number}/labels`))
  await picture.decode()
  return { picture, labels, shape: audit.shapes[number] }
}

async function show() {
  const audit = await read('/api/strategies')
  const bursts = await Promise.all(audit.bursts.map((_, number) => loadBurst(audit, number)))
  document.getElementById('folder').textContent = audit.folder
  const plane = element('canvas', { width: SIDE, height: SIDE, role: 'img', aria: { label: 'Drawn pixels in the plane of their embedding, coloured by strategy' } })
  const crops = element('div', { id: 'crops' })
  const heading = element('h2', {}, '')
  const maps = bursts.map(({ picture }) => {
    const factor = Math.max(1, Math.ceil(SIDE / Math.min(picture.width, picture.height)))
    return element('canvas', { width: factor * picture.width, height: factor * picture.height, class: 'map' })
  })
  const table = tableOf(audit, choose)

  function choose(number) {
    chosen = chosen === number ? undefined : number
    redraw()
  }
  function redraw() {
    table.querySelectorAll('button').forEach((one, number) => one.setAttribute('aria-pressed', String(number === chosen)))
    heading.textContent = `Pixels: ${chosen === undefined ? 'all strategies' : audit.strategies[chosen].name}`
    drawPlane(plane, audit)
    drawCrops(crops, audit, bursts)
    maps.forEach((canvas, number) => drawMap(canvas, bursts[number], audit.colours))
  }
  maps.forEach((canvas, number) => {
    const { labels, shape: [rows, columns] } = bursts[number]
    const under = (event) => {
      const row = Math.min(rows - 1, Math.floor(event.offsetY / canvas.clientHeight * rows))
      const column = Math.min(columns - 1, Math.floor(event.offsetX / canvas.clientWidth * columns))
      return labels[row * columns + column]
    }
    canvas.addEventListener('pointermove', (event) => { document.getElementById('pointed').textContent = audit.strategies[under(event)].name })
    canvas.addEventListener('click', (event) => choose(under(event)))
  })
  plane.addEventListener('click', (event) => {
    const away = audit.points.strategy.map((_, i) => {
      const [x, y] = inPlane(audit, audit.points.x[i], audit.points.y[i])
      return Math.hypot(x - event.offsetX, y - event.offsetY)
    })
    choose(audit.points.strategy[away.indexOf(Math.min(...away))])
  })
  place.replaceChildren(
    element('h1', {}, 'Strategies of a denoiser'),
    element('ul', {}, ...audit.lines.map((line) => element('li', {}, line))),
    element('div', { id: 'plane' }, plane, element('div', {}, table, element('p', { class: 'soft' }, 'Choose a strategy in the table, the plane or a map; again shows all.'))),
    heading, crops,
    ...maps.flatMap((canvas, number) => [element('h2', {}, audit.bursts[number].name), canvas]),
  )
  redraw()
}

await attempt(show)
