// A scatter plot of many points in WebGL, with zoom, lasso and the nearest point to the pointer.

import { element } from './elements.js'
import { inside } from './lasso.js'

const VERTEX = `
attribute vec2 at; attribute vec4 colour; attribute float size;
uniform vec2 scale; uniform vec2 shift; varying vec4 ink;
void main() { gl_Position = vec4(at * scale + shift, 0.0, 1.0); gl_PointSize = size; ink = colour; }`
const FRAGMENT = `
precision mediump float; varying vec4 ink;
void main() {
  float r = length(gl_PointCoord - 0.5);
  if (r > 0.5) discard;
  gl_FragColor = vec4(ink.rgb * ink.a, ink.a);
}`
const NEAR = 9 // pixels around the pointer in which a point is found

export class Scatter {
  /** `picked(index)` is called for a click on a point, `lassoed(indices)` after a lasso, `pointed(index)` on moves. */
  constructor({ label, picked, lassoed, pointed }) {
    Object.assign(this, { picked, lassoed, pointed, points: new Float32Array(0), zoom: 1, centre: [0, 0], lassoing: true, path: [] })
    this.canvas = element('canvas', { tabIndex: 0, role: 'img', aria: { label } })
    this.over = element('canvas', { aria: { hidden: true } })
    this.over.style.pointerEvents = 'none'
    this.root = element('div', { class: 'plot' }, this.canvas, this.over)
    this.gl = this.canvas.getContext('webgl', { antialias: false, premultipliedAlpha: true })
    if (this.gl) this.prepare()
    else this.root.append(element('p', { class: 'empty' }, 'This browser has no WebGL: the plot cannot be drawn, the pictures can.'))
    this.listen()
    this.observer = new ResizeObserver(() => this.resize())
    this.observer.observe(this.root)
  }

  prepare() {
    const gl = this.gl
    const program = gl.createProgram()
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind)
      gl.shaderSource(shader, text)
      gl.compileShader(shader)
      gl.attachShader(program, shader)
    }
    gl.linkProgram(program)
    gl.useProgram(program)
    this.uniforms = { scale: gl.getUniformLocation(program, 'scale'), shift: gl.getUniformLocation(program, 'shift') }
    this.buffers = { at: gl.createBuffer(), colour: gl.createBuffer(), size: gl.createBuffer() }
    for (const [name, count, kind, whole] of [['at', 2, gl.FLOAT, false], ['colour', 4, gl.UNSIGNED_BYTE, true], ['size', 1, gl.FLOAT, false]]) {
      const where = gl.getAttribLocation(program, name)
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name])
      gl.enableVertexAttribArray(where)
      gl.vertexAttribPointer(where, count, kind, whole, 0, 0)
    }
    gl.enable(gl.BLEND)
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA)
  }

  upload(name, values) {
    if (!this.gl) return
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[name])
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.STATIC_DRAW)
  }

  /** Show points (x, y, x, y, ...); the view is fitted to them. */
  setPoints(points) {
    this.points = points
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity]
    for (let i = 0; i < points.length; i += 2) {
      left = Math.min(left, points[i]); right = Math.max(right, points[i])
      low = Math.min(low, points[i + 1]); high = Math.max(high, points[i + 1])
    }
    this.whole = points.length ? { centre: [(left + right) / 2, (low + high) / 2], span: Math.max(right - left, high - low, 1e-6) * 1.1 } : { centre: [0, 0], span: 2 }
    this.upload('at', points)
    this.reset()
  }

  /** Colours (r, g, b, a of each point) and sizes in pixels. */
  setMarks(colours, sizes) {
    this.upload('colour', colours)
    this.upload('size', sizes)
    this.request()
  }

  reset() {
    this.zoom = 1
    this.centre = [...(this.whole?.centre ?? [0, 0])]
    this.request()
  }

  /** Move the view so that a point stands in its middle, and mark it. */
  show(index) {
    this.marked = index
    if (index !== undefined && this.zoom > 1) this.centre = [this.points[2 * index], this.points[2 * index + 1]]
    this.request()
  }

  resize() {
    const ratio = Math.min(devicePixelRatio || 1, 2)
    const [wide, high] = [this.root.clientWidth, this.root.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)))
    for (const canvas of [this.canvas, this.over]) {
      if (canvas.width !== wide) canvas.width = wide // a canvas that is given a size, be it its own, is made anew
      if (canvas.height !== high) canvas.height = high
    }
    this.request()
  }

  request() {
    if (this.requested) return
    this.requested = true
    requestAnimationFrame(() => {
      this.requested = false
      this.draw()
    })
  }

  /** Scale and shift from points to the clip space of -1 to 1, whose shorter side holds the whole. */
  view() {
    const [wide, high] = [this.canvas.width, this.canvas.height]
    const unit = (2 * this.zoom) / (this.whole?.span ?? 2)
    const scale = wide > high ? [(unit * high) / wide, unit] : [unit, (unit * wide) / high]
    return { scale, shift: [-this.centre[0] * scale[0], -this.centre[1] * scale[1]] }
  }

  draw() {
    const { scale, shift } = this.view()
    const gl = this.gl
    if (gl) {
      gl.viewport(0, 0, this.canvas.width, this.canvas.height)
      gl.clearColor(0, 0, 0, 0)
      gl.clear(gl.COLOR_BUFFER_BIT)
      gl.uniform2fv(this.uniforms.scale, scale)
      gl.uniform2fv(this.uniforms.shift, shift)
      if (this.points.length) gl.drawArrays(gl.POINTS, 0, this.points.length / 2)
    }
    this.drawOver(scale, shift)
    this.drawn = (this.drawn ?? 0) + 1
  }

  drawOver(scale, shift) {
    const pen = this.over.getContext('2d')
    const [wide, high] = [this.over.width, this.over.height]
    pen.clearRect(0, 0, wide, high)
    const ink = getComputedStyle(this.root).color
    const pixel = ([x, y]) => [((x * scale[0] + shift[0] + 1) / 2) * wide, ((1 - y * scale[1] - shift[1]) / 2) * high]
    pen.lineWidth = 2
    pen.strokeStyle = ink
    if (this.path.length > 1) {
      pen.beginPath()
      this.path.map(pixel).forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)))
      pen.stroke()
    }
    if (this.marked !== undefined && 2 * this.marked < this.points.length) {
      const [x, y] = pixel([this.points[2 * this.marked], this.points[2 * this.marked + 1]])
      pen.beginPath()
      pen.arc(x, y, 9, 0, 2 * Math.PI)
      pen.stroke()
    }
  }

  /** The place of the pointer among the points. */
  place(event) {
    const box = this.canvas.getBoundingClientRect()
    const { scale, shift } = this.view()
    const x = (2 * (event.clientX - box.left)) / box.width - 1
    const y = 1 - (2 * (event.clientY - box.top)) / box.height
    return [(x - shift[0]) / scale[0], (y - shift[1]) / scale[1]]
  }

  nearest([x, y]) {
    const { scale } = this.view()
    const near = NEAR * Math.min(devicePixelRatio || 1, 2)
    const [sx, sy] = [(scale[0] * this.canvas.width) / 2, (scale[1] * this.canvas.height) / 2]
    let [best, distance] = [undefined, near * near]
    for (let i = 0; i < this.points.length / 2; i++) {
      const dx = (this.points[2 * i] - x) * sx
      const dy = (this.points[2 * i + 1] - y) * sy
      const d = dx * dx + dy * dy
      if (d < distance) [best, distance] = [i, d]
    }
    return best
  }

  listen() {
    const canvas = this.canvas
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault()
      this.magnify(Math.exp(-event.deltaY / 400), this.place(event))
    }, { passive: false })
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId)
      this.start = { at: this.place(event), x: event.clientX, y: event.clientY, moved: false, lasso: this.lassoing && !event.shiftKey }
      this.path = []
    })
    canvas.addEventListener('pointermove', (event) => {
      if (!this.start) {
        const index = this.nearest(this.place(event))
        if (index !== this.marked) {
          this.marked = index
          this.pointed?.(index)
          this.request()
        }
        return
      }
      const here = this.place(event)
      if (Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) > 4) this.start.moved = true
      if (!this.start.moved) return
      if (this.start.lasso) this.path.push(here)
      else this.centre = this.centre.map((c, i) => c + this.start.at[i] - here[i])
      this.request()
    })
    const end = (event) => {
      if (!this.start) return
      const { moved, lasso } = this.start
      this.start = undefined
      if (!moved) {
        const index = this.nearest(this.place(event))
        if (index !== undefined) this.picked?.(index)
      } else if (lasso) this.lassoed?.(inside(this.points, this.path))
      this.path = []
      this.request()
    }
    canvas.addEventListener('pointerup', end)
    canvas.addEventListener('pointercancel', () => { this.start = undefined; this.path = []; this.request() })
    canvas.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key]
      const grows = { '+': 1.3, '=': 1.3, '-': 1 / 1.3 }[event.key]
      if (step) this.centre = this.centre.map((c, i) => c + (0.1 * step[i] * this.whole.span) / this.zoom)
      else if (grows) this.magnify(grows, this.centre)
      else if (event.key === '0') this.reset()
      else return
      event.preventDefault()
      event.stopPropagation()
      this.request()
    })
  }

  magnify(factor, [x, y]) {
    const zoom = Math.max(1, Math.min(200, this.zoom * factor))
    const ratio = this.zoom / zoom
    this.centre = [x + (this.centre[0] - x) * ratio, y + (this.centre[1] - y) * ratio]
    this.zoom = zoom
    this.request()
  }

  end() {
    this.observer.disconnect()
    this.gl?.getExtension('WEBGL_lose_context')?.loseContext()
  }
}
