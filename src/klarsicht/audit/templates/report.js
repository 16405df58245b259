// The report's page: sorted tables, classes beyond the first, a search, enlarged pictures, and lists of members saved as files.
const FEW = 20 // classes of a table that are shown at first

/** A cell's number, or its text: "<0.001", "+1.20 (...)" and "12 of 60" sort by their first number. */
function sortKey(cell) {
  const text = cell.textContent.trim()
  const found = text.replace('−', '-').match(/^[<+]?\s*(-?\d*\.?\d+)/)
  return found ? Number(found[1]) : text.toLowerCase()
}

function compare(a, b) {
  return typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === 'number' ? -1 : 1
}

for (const table of document.querySelectorAll('table.classes')) {
  const body = table.tBodies[0]
  const rows = [...body.rows]
  let few = rows.length > FEW
  let words = []
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]))
  const draw = () => {
    let shown = 0
    for (const row of body.rows) {
      const sought = words.every((word) => texts.get(row).includes(word))
      row.hidden = !sought || (few && !words.length && shown >= FEW)
      shown += sought
    }
  }
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement('button')
    button.className = 'sort'
    button.append(...head.childNodes)
    head.append(button)
    button.addEventListener('click', () => {
      const falls = head.getAttribute('aria-sort') === 'ascending'
      for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort')
      head.setAttribute('aria-sort', falls ? 'descending' : 'ascending')
      const keys = new Map(rows.map((row) => [row, sortKey(row.cells[column])]))
      rows.sort((a, b) => (falls ? -1 : 1) * compare(keys.get(a), keys.get(b)))
      body.append(...rows)
      draw()
    })
  }
  if (few) {
    const all = document.createElement('button')
    all.textContent = `Show all ${rows.length} lines`
    all.addEventListener('click', () => { few = false; draw(); all.remove() })
    const seek = document.createElement('input')
    Object.assign(seek, { type: 'search', className: 'seek', placeholder: 'Search classes' })
    seek.setAttribute('aria-label', 'Search classes')
    seek.addEventListener('input', () => { words = seek.value.toLowerCase().split(/\s+/).filter(Boolean); draw() })
    table.before(seek)
    table.after(all)
    draw()
  }
}

for (const button of document.querySelectorAll('button.save')) {
  button.hidden = false
  button.addEventListener('click', () => {
    const list = document.getElementById(button.dataset.list)
    const lines = list.textContent.split('\n').filter(Boolean)
    const text = lines.map((line) => `${list.dataset.prefix ?? ''}${line}\n`).join('')
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([text], { type: 'text/plain' }))
    link.download = button.dataset.name
    link.click()
    URL.revokeObjectURL(link.href)
  })
}

/** Open the list that the address leads to. */
function openListed() {
  const listed = document.getElementById(location.hash.slice(1))
  if (listed?.tagName === 'DETAILS') { listed.open = true; listed.scrollIntoView() }
}
addEventListener('hashchange', openListed)
openListed()

const dialog = document.getElementById('enlarged')
for (const plate of document.querySelectorAll('.plate')) {
  plate.addEventListener('click', () => {
    const pictures = [...plate.querySelectorAll('img')].map((image) => image.cloneNode())
    const close = document.createElement('button')
    close.textContent = 'Close'
    close.addEventListener('click', () => dialog.close())
    const title = document.createElement('p')
    title.textContent = plate.title
    dialog.replaceChildren(title, ...pictures, close)
    dialog.showModal()
  })
}
