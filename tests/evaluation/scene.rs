//! Scenes with a known truth: a background and objects on it, in the colours, shapes and styles that the built-in model
//! knows (models/infill-mini/train/words.py), drawn here anew.

use image::{Rgb, RgbImage};

use crate::random::Random;
use crate::shapes::{Shape, coverage, stroke};

/// The names and their sRGB values.
pub const COLOURS: [(&str, [u8; 3]); 12] = [
    ("red", [218, 38, 38]),
    ("orange", [242, 138, 24]),
    ("yellow", [248, 222, 48]),
    ("green", [44, 160, 66]),
    ("cyan", [64, 206, 222]),
    ("blue", [40, 84, 214]),
    ("purple", [132, 54, 186]),
    ("pink", [246, 128, 186]),
    ("brown", [126, 78, 42]),
    ("black", [26, 26, 28]),
    ("gray", [136, 136, 138]),
    ("white", [246, 246, 244]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Flat,
    Outlined,
    Shaded,
    Pencil,
    Neon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    Plain,
    Gradient,
    Stripes,
    Checks,
    Dots,
    Clouds,
    Landscape,
    Sea,
}

/// One object; lengths in units of the picture's side.
#[derive(Clone, Copy, Debug)]
pub struct Thing {
    pub shape: Shape,
    /// Its place in [`COLOURS`].
    pub colour: usize,
    pub style: Style,
    pub x: f32,
    pub y: f32,
    pub radius: f32,
    pub angle: f32,
}

/// A background and what stands on it.
#[derive(Clone, Debug)]
pub struct Scene {
    pub ground: Ground,
    pub colours: [usize; 2],
    pub style: Style,
    pub things: Vec<Thing>,
    seed: u64,
}

/// A square picture of values 0 to 255.
pub struct Canvas {
    pub size: usize,
    pixels: Vec<[f32; 3]>,
}

pub fn colour_named(name: &str) -> usize {
    COLOURS.iter().position(|(known, _)| *known == name).unwrap()
}

impl Scene {
    pub fn random(random: &mut Random) -> Self {
        use Style::{Flat, Neon, Outlined, Pencil, Shaded};
        let style = random.weighed(&[(Flat, 5), (Outlined, 3), (Shaded, 3), (Pencil, 2), (Neon, 2)]);
        let mut ground = random.weighed(&[
            (Ground::Plain, 6),
            (Ground::Gradient, 4),
            (Ground::Stripes, 2),
            (Ground::Checks, 2),
            (Ground::Dots, 2),
            (Ground::Clouds, 3),
            (Ground::Landscape, 2),
            (Ground::Sea, 2),
        ]);
        let first = random.below(COLOURS.len());
        let mut colours = [first, (first + 1 + random.below(COLOURS.len() - 1)) % COLOURS.len()];
        if style == Neon {
            colours =
                [colour_named("black"), colour_named(random.pick(&["blue", "purple", "gray", "brown"]))];
            if !matches!(ground, Ground::Plain | Ground::Gradient | Ground::Stripes | Ground::Clouds) {
                ground = Ground::Plain;
            }
        }
        Self { ground, colours, style, things: Vec::new(), seed: random.bits() }
    }

    /// A colour that an object on this background can have.
    pub fn free_colour(&self, random: &mut Random) -> usize {
        let mut taken: Vec<usize> = match self.ground {
            Ground::Landscape => ["green", "cyan", "blue", "gray"].map(colour_named).to_vec(),
            Ground::Sea => ["cyan", "blue", "white", "gray"].map(colour_named).to_vec(),
            Ground::Plain | Ground::Clouds => vec![self.colours[0]],
            _ => self.colours.to_vec(),
        };
        if self.style == Style::Neon {
            taken.extend(["black", "brown", "gray"].map(colour_named));
        }
        loop {
            let colour = random.below(COLOURS.len());
            if !taken.contains(&colour) {
                return colour;
            }
        }
    }

    /// A place for an object of this radius that leaves the others alone, if one is found.
    pub fn place(&self, random: &mut Random, radius: f32) -> Option<(f32, f32)> {
        (0..30).map(|_| (random.between(radius, 1.0 - radius), random.between(radius, 1.0 - radius))).find(
            |(x, y)| self.things.iter().all(|t| (x - t.x).hypot(y - t.y) > 1.5 * radius + t.radius + 0.02),
        )
    }

    /// An object of this scene's style at a place.
    pub fn thing(&self, random: &mut Random, (x, y): (f32, f32), radius: f32) -> Thing {
        let (shape, colour) = (random.pick(&Shape::ALL), self.free_colour(random));
        Thing { shape, colour, style: self.style, x, y, radius, angle: random.between(-0.2, 0.2) }
    }

    /// The background alone.
    pub fn draw_ground(&self, size: usize) -> Canvas {
        let mut random = Random::new(self.seed);
        let [first, second] = self.colours.map(|colour| jittered(&mut random, colour));
        let (a, b, c) = (random.unit(), random.unit(), random.unit());
        let soft = |edge: f32| (edge * size as f32 + 0.5).clamp(0.0, 1.0);
        let grid: Vec<f32> = (0..64 * 64).map(|_| random.unit()).collect();
        let pixel = |x: f32, y: f32| -> [f32; 3] {
            match self.ground {
                Ground::Plain => first,
                Ground::Gradient => {
                    let (sin, cos) = (a * std::f32::consts::TAU).sin_cos();
                    let along = ((x - 0.5) * cos + (y - 0.5) * sin) / (cos.abs() + sin.abs());
                    mix(first, second, 0.5 + along)
                }
                Ground::Stripes => {
                    let angle = [0.0, 0.5, 0.25, -0.25][(a * 4.0) as usize % 4] * std::f32::consts::PI;
                    let period = 0.1 + 0.2 * b;
                    let phase = (x * angle.cos() + y * angle.sin()) / period + c;
                    mix(first, second, soft(((phase.rem_euclid(1.0) - 0.5).abs() - 0.25) * period))
                }
                Ground::Checks => {
                    let cells = (3.0 + (a * 6.0).floor()).min(8.0);
                    let [p, q] = [x, y].map(|v| {
                        soft((((v * cells / 2.0).rem_euclid(1.0) - 0.5).abs() - 0.25) * 2.0 / cells)
                    });
                    mix(first, second, p * (1.0 - q) + q * (1.0 - p))
                }
                Ground::Dots => {
                    let cells = (4.0 + (a * 5.0).floor()).min(8.0);
                    let [p, q] = [x, y].map(|v| (v * cells).rem_euclid(1.0) - 0.5);
                    mix(first, second, soft((0.18 + 0.12 * b - p.hypot(q)) / cells))
                }
                Ground::Clouds => {
                    let amount =
                        0.65 * noise(&grid, x, y, 4.0 + 4.0 * a) + 0.35 * noise(&grid, y, x, 12.0 + 12.0 * b);
                    mix(first.map(|v| v * 0.72), first.map(|v| v + (255.0 - v) * 0.35), amount)
                }
                Ground::Landscape => {
                    let horizon = 0.45 + 0.25 * a;
                    let mut pixel = mix([112.0, 168.0, 232.0], [208.0, 228.0, 244.0], y / horizon);
                    for (step, hill) in [[96.0, 150.0, 92.0], [72.0, 128.0, 64.0]].into_iter().enumerate() {
                        let step = step as f32;
                        let waves = 0.05 * (x * (4.0 + 5.0 * b) + 6.0 * c + step).sin()
                            + 0.03 * (x * (9.0 + 8.0 * c) + 6.0 * b + 2.0 * step).sin();
                        pixel = mix(pixel, hill, soft(y - horizon - 0.13 * step - waves));
                    }
                    pixel
                }
                Ground::Sea => {
                    let horizon = 0.35 + 0.2 * a;
                    let sky = mix([150.0, 196.0, 238.0], [226.0, 236.0, 240.0], y / horizon);
                    let sea = mix(sky, [48.0, 112.0, 170.0], soft(y - horizon));
                    let beach = 0.75 + 0.15 * b + 0.03 * (x * (3.0 + 4.0 * c) + 6.0 * a).sin();
                    mix(sea, [226.0, 204.0, 156.0], soft(y - beach))
                }
            }
        };
        let at = |i: usize| ((i % size) as f32 + 0.5) / size as f32;
        let down = |i: usize| ((i / size) as f32 + 0.5) / size as f32;
        Canvas { size, pixels: (0..size * size).map(|i| pixel(at(i), down(i))).collect() }
    }

    /// The background with all objects.
    pub fn draw(&self, size: usize) -> Canvas {
        let mut canvas = self.draw_ground(size);
        for thing in &self.things {
            canvas.draw(thing);
        }
        canvas
    }
}

fn jittered(random: &mut Random, colour: usize) -> [f32; 3] {
    COLOURS[colour].1.map(|v| (f32::from(v) + random.between(-10.0, 10.0)).clamp(0.0, 255.0))
}

fn mix(a: [f32; 3], b: [f32; 3], amount: f32) -> [f32; 3] {
    let amount = amount.clamp(0.0, 1.0);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * amount)
}

/// Smooth noise with so many cells across.
fn noise(grid: &[f32], x: f32, y: f32, cells: f32) -> f32 {
    let (x, y) = (x * cells, y * cells);
    let value = |i: usize, j: usize| grid[(j % 64) * 64 + i % 64];
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (i, j, s, t) = (x as usize, y as usize, ease(x.fract()), ease(y.fract()));
    let top = value(i, j) * (1.0 - s) + value(i + 1, j) * s;
    let bottom = value(i, j + 1) * (1.0 - s) + value(i + 1, j + 1) * s;
    top * (1.0 - t) + bottom * t
}

impl Canvas {
    pub fn draw(&mut self, thing: &Thing) {
        let size = self.size;
        let full = size as f32;
        let mut random = Random::new(thing.x.to_bits().into());
        let rgb = jittered(&mut random, thing.colour);
        let outlines = thing.shape.placed([thing.x * full, thing.y * full], thing.radius * full, thing.angle);
        let body = coverage(&outlines, size);
        let r = thing.radius;
        let at = |i: usize| ((i % size) as f32 / full, (i / size) as f32 / full);
        match thing.style {
            Style::Flat => self.blend(&body, |_| (1.0, rgb)),
            Style::Outlined => {
                self.blend(&body, |_| (1.0, rgb));
                let line = if COLOURS[thing.colour].0 == "black" { [250.0; 3] } else { [24.0, 24.0, 26.0] };
                self.blend(&stroke(&outlines, size, (0.08 * r).max(0.008) * full), |_| (1.0, line));
            }
            Style::Shaded => self.blend(&body, |i| {
                let (x, y) = at(i);
                let light = (x - thing.x + 0.4 * r).hypot(y - thing.y + 0.45 * r) / r;
                let glow = 0.55 * (1.0 - light / 0.9).clamp(0.0, 1.0);
                let shade = 0.45 * ((light - 0.7) / 1.1).clamp(0.0, 1.0);
                (1.0, rgb.map(|v| (v + (255.0 - v) * glow) * (1.0 - shade)))
            }),
            Style::Pencil => {
                let (sin, cos) = (thing.angle * 3.0 + 0.8).sin_cos();
                self.blend(&body, |i| {
                    let (x, y) = at(i);
                    let phase = ((x * cos + y * sin) / (0.16 * r)).rem_euclid(1.0);
                    (0.45 + 0.55 * ((phase - 0.5).abs() * 5.0 - 0.4).clamp(0.0, 1.0), rgb)
                });
                let line = stroke(&outlines, size, (0.05 * r).max(0.007) * full);
                self.blend(&line, |_| (1.0, rgb.map(|v| v * 0.75)));
            }
            Style::Neon => {
                let line = stroke(&outlines, size, 0.16 * r * full);
                self.blend(&blurred(&line, size, (0.12 * r * full).round() as usize), |_| (0.9, rgb));
                self.blend(&body, |_| (0.35, rgb));
                self.blend(&line, |_| (1.0, rgb));
                self.blend(&stroke(&outlines, size, 0.05 * r * full), |_| (0.6, [255.0; 3]));
            }
        }
    }

    fn blend(&mut self, cover: &[f32], ink: impl Fn(usize) -> (f32, [f32; 3])) {
        for (i, pixel) in self.pixels.iter_mut().enumerate().filter(|(i, _)| cover[*i] > 0.0) {
            let (strength, colour) = ink(i);
            *pixel = mix(*pixel, colour, cover[i] * strength);
        }
    }

    pub fn to_image(&self) -> RgbImage {
        RgbImage::from_fn(self.size as u32, self.size as u32, |x, y| {
            let pixel = self.pixels[y as usize * self.size + x as usize];
            Rgb(pixel.map(|v| v.round().clamp(0.0, 255.0) as u8))
        })
    }
}

/// The mean over a square of `2 radius + 1` pixels.
fn blurred(values: &[f32], size: usize, radius: usize) -> Vec<f32> {
    let along = |values: &[f32], step: usize, stride: usize| -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        for line in 0..size {
            let at = |i: usize| line * stride + i * step;
            for i in 0..size {
                let window = i.saturating_sub(radius)..(i + radius + 1).min(size);
                out[at(i)] = window.map(|j| values[at(j)]).sum::<f32>() / (2 * radius + 1) as f32;
            }
        }
        out
    };
    along(&along(values, 1, size), size, 1)
}
