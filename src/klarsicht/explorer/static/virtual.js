// Lists and grids of any length, of which only what can be seen is in the page.

import { element } from './elements.js'

const AROUND = 6 // rows beyond both ends of what can be seen

/** A list of rows of one height below a head that stays. `make(item, index)` makes the element of a row, `key(item)`
 *  tells rows apart, and a row whose `stamp(item, index)` changed is made again. */
export class VirtualList {
  constructor({ label, height, make, key, stamp, head }) {
    Object.assign(this, { height, make, key, stamp, head, items: [], shown: new Map(), stamps: new Map() })
    this.space = element('div', { class: 'space', role: 'rowgroup' })
    this.root = element('div', { class: 'virtual', tabIndex: 0, role: 'grid', aria: { label } }, head, this.space)
    this.root.addEventListener('scroll', () => this.draw(), { passive: true })
    new ResizeObserver(() => this.draw()).observe(this.root)
  }

  rowHeight() {
    return typeof this.height === 'function' ? this.height() : this.height
  }

  /** Show other items; elements of those that stay, and whose `stamp` did not change, are kept. */
  set(items) {
    this.items = items
    this.root.setAttribute('aria-rowcount', items.length + 1)
    this.draw()
  }

  draw() {
    const high = this.rowHeight()
    this.space.style.height = `${high * this.items.length}px`
    const first = Math.max(0, Math.floor(this.root.scrollTop / high) - AROUND)
    const last = Math.min(this.items.length, Math.ceil((this.root.scrollTop + this.root.clientHeight) / high) + AROUND)
    const wanted = new Map()
    for (let i = first; i < last; i++) wanted.set(this.key(this.items[i]), i)
    for (const [key, made] of this.shown) {
      if (wanted.has(key) && this.stamps.get(key) === this.stamp(this.items[wanted.get(key)], wanted.get(key))) continue
      made.remove()
      this.shown.delete(key)
    }
    let next = this.space.firstChild // rows stand in the page in the order in which they are seen
    for (const [key, i] of wanted) {
      let made = this.shown.get(key)
      if (!made) {
        made = this.make(this.items[i], i)
        this.shown.set(key, made)
        this.stamps.set(key, this.stamp(this.items[i], i))
      }
      if (made === next) next = next.nextSibling
      else this.space.insertBefore(made, next)
      made.style.top = `${i * high}px`
      made.setAttribute('aria-rowindex', i + 2)
    }
  }

  /** Scroll so that an item can be seen. */
  reveal(index) {
    const high = this.rowHeight()
    const top = index * high
    const seen = this.root.clientHeight - this.head.offsetHeight
    if (top < this.root.scrollTop) this.root.scrollTop = top
    else if (top + high > this.root.scrollTop + seen) this.root.scrollTop = top + high - seen
    this.draw()
  }
}

/** A grid of square cells of at least `side` pixels; `make(item, index)` makes the element of a cell. */
export class VirtualGrid {
  constructor({ label, side, make }) {
    Object.assign(this, { side, make, items: [], shown: new Map() })
    this.space = element('div', { class: 'space' })
    this.root = element('div', { class: 'virtual', tabIndex: 0, role: 'group', aria: { label } }, this.space)
    this.root.addEventListener('scroll', () => this.draw(), { passive: true })
    new ResizeObserver(() => this.draw()).observe(this.root)
  }

  set(items) {
    this.items = items
    this.clear()
    this.draw()
  }

  clear() {
    for (const made of this.shown.values()) made.remove()
    this.shown.clear()
  }

  draw() {
    const wide = this.root.clientWidth
    if (!wide) return
    const columns = Math.max(1, Math.floor(wide / this.side))
    const cell = Math.floor(wide / columns)
    this.columns = columns
    this.space.style.height = `${cell * Math.ceil(this.items.length / columns)}px`
    const first = Math.max(0, Math.floor(this.root.scrollTop / cell) - 2) * columns
    const last = Math.min(this.items.length, (Math.ceil((this.root.scrollTop + this.root.clientHeight) / cell) + 2) * columns)
    const wanted = new Set()
    for (let i = first; i < last; i++) {
      wanted.add(i)
      let made = this.shown.get(i)
      if (!made) {
        made = this.make(this.items[i], i)
        this.shown.set(i, made)
        this.space.append(made)
      }
      Object.assign(made.style, {
        left: `${(i % columns) * cell}px`, top: `${Math.floor(i / columns) * cell}px`, width: `${cell}px`, height: `${cell}px`,
      })
    }
    for (const [i, made] of this.shown) {
      if (!wanted.has(i)) {
        made.remove()
        this.shown.delete(i)
      }
    }
  }
}
