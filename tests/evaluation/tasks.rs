//! Held-out work for the built-in model: scenes that no training has seen, holes in them, and words.

use image::{GrayImage, Luma, RgbImage};

use crate::random::Random;
use crate::scene::{COLOURS, Scene, Style, Thing};
use crate::shapes::{Point, Shape, coverage};

/// A picture with a hole and what belongs into it.
pub struct Task {
    /// What the model is given.
    pub picture: RgbImage,
    /// The same without any object in the hole.
    pub background: RgbImage,
    /// Row by row, true where to repaint.
    pub hole: Vec<bool>,
    pub prompt: String,
    /// What the words ask for.
    pub asked: Option<(usize, Shape)>,
    /// A picture of the object that is asked for, alone on a background of its own.
    pub reference: RgbImage,
    pub seed: u64,
}

impl Task {
    /// The hole as a mask.
    pub fn mask(&self) -> GrayImage {
        let width = self.picture.width();
        GrayImage::from_fn(width, self.picture.height(), |x, y| {
            Luma([if self.hole[(y * width + x) as usize] { 255 } else { 0 }])
        })
    }
}

/// A task with an object to paint; in every other one the hole holds a different object at first.
pub fn object(number: u64, size: usize) -> Task {
    let mut random = Random::new(number);
    let (mut scene, thing, hole) = prepared(&mut random, size);
    let background = scene.draw(size).to_image();
    if random.chance(0.5) {
        let radius = 0.8 * thing.radius;
        let other = scene.thing(&mut random, (thing.x, thing.y), radius);
        if other.shape != thing.shape && other.colour != thing.colour {
            scene.things.push(other);
        }
    }
    let words = words(&mut random, &thing, scene.style);
    Task {
        picture: scene.draw(size).to_image(),
        background,
        hole,
        prompt: words,
        asked: Some((thing.colour, thing.shape)),
        reference: portrait(&mut random, &thing, size),
        seed: number,
    }
}

/// A task without words: an object is to go, and the background to go on.
pub fn empty(number: u64, size: usize) -> Task {
    let mut random = Random::new(number ^ 0xE0_0000);
    let (mut scene, thing, hole) = prepared(&mut random, size);
    let background = scene.draw(size).to_image();
    scene.things.push(thing);
    Task {
        picture: scene.draw(size).to_image(),
        background,
        hole,
        prompt: String::new(),
        asked: None,
        reference: portrait(&mut random, &thing, size),
        seed: number,
    }
}

/// A scene, an object that is not yet in it, and a hole that holds that object and none of the others.
fn prepared(random: &mut Random, size: usize) -> (Scene, Thing, Vec<bool>) {
    let mut scene = Scene::random(random);
    let radius = random.between(0.14, 0.27);
    let place = (random.between(radius, 1.0 - radius), random.between(radius, 1.0 - radius));
    let thing = scene.thing(random, place, radius);
    let hole = hole_around(random, &thing, size);
    scene.things.push(thing);
    for _ in 0..random.weighed(&[(0, 4), (1, 3), (2, 2)]) {
        let radius = random.between(0.1, 0.18);
        if let Some(place) = scene.place(random, radius) {
            let other = scene.thing(random, place, radius);
            scene.things.push(other);
        }
    }
    scene.things.remove(0);
    let clear = |other: &Thing| {
        let body = coverage(&outline(other, 1.1, size), size);
        body.iter().zip(&hole).all(|(cover, hole)| *cover == 0.0 || !hole)
    };
    scene.things.retain(clear);
    (scene, thing, hole)
}

/// A box, an ellipse or a wavy outline around an object, row by row.
pub fn hole_around(random: &mut Random, thing: &Thing, size: usize) -> Vec<bool> {
    let slack: [f32; 4] = std::array::from_fn(|_| thing.radius * random.between(1.05, 1.4));
    let kind = random.below(3);
    let (wave, turn) = (random.between(0.0, 0.15), random.between(0.0, 6.3));
    let at = |i: usize| (i as f32 + 0.5) / size as f32;
    (0..size * size)
        .map(|i| {
            let (dx, dy) = (at(i % size) - thing.x, at(i / size) - thing.y);
            match kind {
                0 => -slack[0] < dx && dx < slack[1] && -slack[2] < dy && dy < slack[3],
                1 => {
                    (dx / slack[0].max(1.15 * thing.radius)).hypot(dy / slack[2].max(1.15 * thing.radius))
                        < 1.0
                }
                _ => {
                    let reach = 1.25 + wave * (3.0 * dy.atan2(dx) + turn).sin();
                    dx.hypot(dy) < thing.radius * reach
                }
            }
        })
        .collect()
}

fn outline(thing: &Thing, grown: f32, size: usize) -> Vec<Vec<Point>> {
    let full = size as f32;
    thing.shape.placed([thing.x * full, thing.y * full], grown * thing.radius * full, thing.angle)
}

/// The object alone in the middle of a scene of its own.
fn portrait(random: &mut Random, thing: &Thing, size: usize) -> RgbImage {
    loop {
        let mut scene = Scene::random(random);
        if scene.style == Style::Neon || scene.colours.contains(&thing.colour) {
            continue;
        }
        scene.things.push(Thing { x: 0.5, y: 0.5, radius: 0.34, style: Style::Flat, ..*thing });
        if scene.free_colour(random) != thing.colour && !free(&scene, thing.colour) {
            continue;
        }
        return scene.draw(size).to_image();
    }
}

fn free(scene: &Scene, colour: usize) -> bool {
    let mut random = Random::new(1);
    (0..200).any(|_| scene.free_colour(&mut random) == colour)
}

/// What somebody would say for an object.
fn words(random: &mut Random, thing: &Thing, style: Style) -> String {
    let noun = format!("{} {}", COLOURS[thing.colour].0, thing.shape.name());
    let said = match (style, random.below(3)) {
        (Style::Flat, 0) => format!("flat {noun}"),
        (Style::Outlined, 0) => format!("{noun} with a dark outline"),
        (Style::Shaded, 0) => format!("shaded {noun}"),
        (Style::Pencil, 0) => format!("{noun} drawn in pencil"),
        (Style::Neon, 0) => format!("neon {noun}"),
        _ => noun,
    };
    let article = if said.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    match random.below(6) {
        0 => said,
        1 => format!("a picture of {article} {said}"),
        2 => format!("a drawing of {article} {said}"),
        _ => format!("{article} {said}"),
    }
}

#[test]
fn tasks_are_what_they_say() {
    for number in 0..40 {
        let task = object(number, 128);
        let (colour, shape) = task.asked.unwrap();
        assert!(
            task.prompt.contains(COLOURS[colour].0) && task.prompt.contains(shape.name()),
            "{}",
            task.prompt
        );
        let outside_differs = task
            .picture
            .pixels()
            .zip(task.background.pixels())
            .zip(&task.hole)
            .any(|((a, b), hole)| a != b && !hole);
        assert!(!outside_differs, "task {number}: the hole does not hold what is to go");
        let share = task.hole.iter().filter(|hole| **hole).count() as f32 / task.hole.len() as f32;
        assert!((0.02..0.6).contains(&share), "task {number}: {share}");
        assert_eq!(object(number, 128).picture, task.picture);
    }
}
