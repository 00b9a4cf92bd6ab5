//! The twelve shapes as outlines in the unit disc, y downwards, and how much of a pixel they cover.

use std::f32::consts::{PI, TAU};

pub type Point = [f32; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Heart,
    Diamond,
    Cross,
    Ring,
    Moon,
    Arrow,
    Flower,
    House,
}

impl Shape {
    pub const ALL: [Self; 12] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Heart,
        Self::Diamond,
        Self::Cross,
        Self::Ring,
        Self::Moon,
        Self::Arrow,
        Self::Flower,
        Self::House,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Heart => "heart",
            Self::Diamond => "diamond",
            Self::Cross => "cross",
            Self::Ring => "ring",
            Self::Moon => "moon",
            Self::Arrow => "arrow",
            Self::Flower => "flower",
            Self::House => "house",
        }
    }

    /// The outline, and for the ring its hole.
    fn outlines(self) -> Vec<Vec<Point>> {
        let one = |points: &[Point]| vec![points.to_vec()];
        match self {
            Self::Circle => vec![round(64, |_| 1.0)],
            Self::Ring => vec![round(64, |_| 1.0), round(64, |_| 0.52)],
            Self::Square => one(&[[-0.8, -0.8], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]]),
            Self::Triangle => one(&[[0.0, -0.95], [0.98, 0.75], [-0.98, 0.75]]),
            Self::Star => vec![round(10, |i| if i % 2 == 0 { 1.0 } else { 0.42 })],
            Self::Diamond => one(&[[0.0, -1.0], [0.68, 0.0], [0.0, 1.0], [-0.68, 0.0]]),
            Self::Flower => vec![round(100, |i| {
                let t = TAU * i as f32 / 100.0;
                0.62 + 0.38 * (2.5 * t).cos().abs()
            })],
            Self::Heart => vec![heart()],
            Self::Moon => vec![moon()],
            Self::Cross => {
                let (a, b) = (0.3, 0.95);
                one(&[
                    [-a, -b],
                    [a, -b],
                    [a, -a],
                    [b, -a],
                    [b, a],
                    [a, a],
                    [a, b],
                    [-a, b],
                    [-a, a],
                    [-b, a],
                    [-b, -a],
                    [-a, -a],
                ])
            }
            Self::Arrow => one(&[
                [-1.0, -0.25],
                [0.1, -0.25],
                [0.1, -0.72],
                [1.0, 0.0],
                [0.1, 0.72],
                [0.1, 0.25],
                [-1.0, 0.25],
            ]),
            Self::House => one(&[
                [0.0, -1.0],
                [0.95, -0.15],
                [0.7, -0.15],
                [0.7, 0.85],
                [-0.7, 0.85],
                [-0.7, -0.15],
                [-0.95, -0.15],
            ]),
        }
    }

    /// The outlines at a place, turned by `angle` (radians); lengths in pixels.
    pub fn placed(self, centre: Point, radius: f32, angle: f32) -> Vec<Vec<Point>> {
        let (sin, cos) = angle.sin_cos();
        let place = |[x, y]: Point| {
            [centre[0] + radius * (x * cos - y * sin), centre[1] + radius * (x * sin + y * cos)]
        };
        self.outlines().into_iter().map(|outline| outline.into_iter().map(place).collect()).collect()
    }
}

/// Points around the centre, the first one on top.
fn round(count: usize, radius: impl Fn(usize) -> f32) -> Vec<Point> {
    let point = |i: usize| {
        let angle = TAU * i as f32 / count as f32 - PI / 2.0;
        [radius(i) * angle.cos(), radius(i) * angle.sin()]
    };
    (0..count).map(point).collect()
}

fn heart() -> Vec<Point> {
    let point = |i: usize| {
        let t = TAU * i as f32 / 64.0;
        let y = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
        [16.0 * t.sin().powi(3) / 16.5, (-y - 2.5) / 16.5]
    };
    (0..64).map(point).collect()
}

/// The outer circle without a smaller one that lies to its right.
fn moon() -> Vec<Point> {
    let (from, to) = (0.3 * PI, 1.7 * PI);
    let (centre, radius) = (0.45, (from.cos() - 0.45).hypot(from.sin()));
    let sweep = from.sin().atan2(from.cos() - centre);
    let along = |a: f32, b: f32, i: usize, count: usize| a + (b - a) * i as f32 / count as f32;
    let outer = (0..=40).map(|i| along(from, to, i, 40)).map(|t| [t.cos(), t.sin()]);
    let inner = (1..30)
        .map(|i| along(TAU - sweep, sweep, i, 30))
        .map(|t| [centre + radius * t.cos(), radius * t.sin()]);
    outer.chain(inner).map(|[x, y]| [x + 0.25, y]).collect()
}

/// How much of each pixel of a square picture lies inside the outlines, in 0..=1; inside twice is outside.
pub fn coverage(outlines: &[Vec<Point>], size: usize) -> Vec<f32> {
    const ROWS: usize = 4;
    let mut out = vec![0.0; size * size];
    for sub in 0..size * ROWS {
        let y = (sub as f32 + 0.5) / ROWS as f32;
        let mut crossings: Vec<f32> = outlines
            .iter()
            .flat_map(|outline| edges(outline))
            .filter(|(a, b)| (a[1] <= y) != (b[1] <= y))
            .map(|(a, b)| a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
            .collect();
        crossings.sort_by(f32::total_cmp);
        for span in crossings.chunks_exact(2) {
            let (left, right) = (span[0].max(0.0), span[1].min(size as f32));
            for x in left as usize..(right.ceil().max(0.0) as usize).min(size) {
                let inside = (right.min(x as f32 + 1.0) - left.max(x as f32)).max(0.0);
                out[sub / ROWS * size + x] += inside / ROWS as f32;
            }
        }
    }
    out
}

/// How much of each pixel lies within half of `width` of the outlines themselves.
pub fn stroke(outlines: &[Vec<Point>], size: usize, width: f32) -> Vec<f32> {
    let mut out: Vec<f32> = vec![0.0; size * size];
    let reach = width / 2.0 + 1.0;
    for (a, b) in outlines.iter().flat_map(|outline| edges(outline)) {
        let range = |low: f32, high: f32| {
            (low - reach).max(0.0) as usize..((high + reach).ceil().max(0.0) as usize).min(size)
        };
        for y in range(a[1].min(b[1]), a[1].max(b[1])) {
            for x in range(a[0].min(b[0]), a[0].max(b[0])) {
                let away = distance([x as f32 + 0.5, y as f32 + 0.5], a, b);
                let cover = (width / 2.0 - away + 0.5).clamp(0.0, 1.0);
                out[y * size + x] = out[y * size + x].max(cover);
            }
        }
    }
    out
}

fn edges(outline: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    (0..outline.len()).map(|i| (outline[i], outline[(i + 1) % outline.len()]))
}

/// From a point to the segment between two others.
fn distance(p: Point, a: Point, b: Point) -> f32 {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let along = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / (dx * dx + dy * dy).max(1e-9);
    let t = along.clamp(0.0, 1.0);
    (p[0] - a[0] - t * dx).hypot(p[1] - a[1] - t * dy)
}

#[test]
fn coverage_is_the_area() {
    let area =
        |shape: Shape| coverage(&shape.placed([64.0, 64.0], 50.0, 0.1), 128).iter().sum::<f32>() / 2500.0;
    for (shape, expected) in [
        (Shape::Circle, PI),
        (Shape::Ring, PI * (1.0 - 0.52 * 0.52)),
        (Shape::Square, 2.56),
        (Shape::Diamond, 1.36),
        (Shape::Cross, 4.0 * 0.3 * 0.95 * 2.0 - 0.36),
    ] {
        assert!((area(shape) / expected - 1.0).abs() < 0.01, "{}: {}", shape.name(), area(shape));
    }
}
