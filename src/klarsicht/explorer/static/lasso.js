// Points inside a polygon that a hand drew.

const MOST_CORNERS = 256

/** Keep at most MOST_CORNERS corners of a path, evenly. */
export function thin(path) {
  if (path.length <= MOST_CORNERS) return path
  return Array.from({ length: MOST_CORNERS }, (_, i) => path[Math.floor((i * path.length) / MOST_CORNERS)])
}

/** Numbers of the points (x, y, x, y, ...) inside a closed polygon of [x, y] corners, by the even-odd rule. */
export function inside(points, path) {
  const corners = thin(path)
  if (corners.length < 3) return []
  const count = corners.length
  const xs = Float64Array.from(corners, ([x]) => x)
  const ys = Float64Array.from(corners, ([, y]) => y)
  const slopes = Float64Array.from(xs, (_, a) => { const b = (a + count - 1) % count; return (xs[b] - xs[a]) / (ys[b] - ys[a]) })
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)]
  const found = []
  for (let i = 0; i < points.length / 2; i++) {
    const x = points[2 * i]
    const y = points[2 * i + 1]
    if (!(x >= left && x <= right && y >= low && y <= high)) continue
    let odd = false
    for (let a = 0, below = ys[count - 1] > y; a < count; a++) {
      const now = ys[a] > y
      if (now !== below && x < slopes[a] * (y - ys[a]) + xs[a]) odd = !odd
      below = now
    }
    if (odd) found.push(i)
  }
  return found
}
