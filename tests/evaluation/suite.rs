//! What is asked of the model, counted.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use image::RgbImage;
use infill_engine::image::sheet::{Row, Sheet, Tile};

use crate::look::{Seen, look};
use crate::painter::{How, Painter, variable};
use crate::scene::COLOURS;
use crate::tasks::{self, Task};

/// Words that ask for an object and leave open which.
const OPEN_WORDS: &str = "a shape";

/// One line of the table: a share, and what it must be.
pub struct Score {
    what: &'static str,
    value: f64,
    needed: Needed,
    of: usize,
}

#[derive(Clone, Copy)]
enum Needed {
    AtLeast(f64),
    AtMost(f64),
}

impl Score {
    pub fn is_reached(&self) -> bool {
        match self.needed {
            Needed::AtLeast(least) => self.value >= least,
            Needed::AtMost(most) => self.value <= most,
        }
    }
}

/// What went wrong, for somebody to look at.
#[derive(Default)]
struct Failures(Vec<Row>);

impl Failures {
    fn add(&mut self, task: &Task, painted: &RgbImage, said: &str) {
        let tile =
            |caption: &str, pixels: &RgbImage| Tile { caption: caption.into(), pixels: pixels.clone() };
        let mask = image::DynamicImage::from(task.mask()).to_rgb8();
        let tiles = vec![
            tile("before", &task.picture),
            tile("mask", &mask),
            tile("reference", &task.reference),
            tile(said, painted),
        ];
        self.0.push(Row { title: format!("{}: {}", task.seed, task.prompt), tiles });
    }

    fn write(self, name: &str) {
        if let Some(folder) = variable("INFILL_EVALUATE_OUT").filter(|_| !self.0.is_empty()) {
            let bytes =
                Sheet { rows: self.0.into_iter().take(24).collect() }.draw().encode_png(None).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), bytes).unwrap();
        }
    }
}

fn said(seen: Option<Seen>) -> String {
    seen.map_or("nothing".into(), |s| format!("{} {} ({:.2})", COLOURS[s.colour].0, s.shape.name(), s.fit))
}

fn share(hits: usize, of: usize) -> f64 {
    hits as f64 / of.max(1) as f64
}

/// Objects by words: colour, then colour and shape.
pub fn objects(painter: &mut Painter, count: usize, needed: [f64; 2]) -> Vec<Score> {
    let (mut colours, mut both, mut failures) = (0, 0, Failures::default());
    for number in 0..count as u64 {
        let task = tasks::object(number, painter.size);
        let painted = painter.paint(&task, How::default());
        let seen = look(&painted, &task.background, &task.hole);
        let (colour, shape) = task.asked.unwrap();
        let right = seen.is_some_and(|seen| seen.colour == colour);
        let whole = right && seen.is_some_and(|seen| seen.shape == shape);
        colours += usize::from(right);
        both += usize::from(whole);
        println!("{number}: {} -> {}{}", task.prompt, said(seen), if whole { "" } else { "  WRONG" });
        if !whole {
            failures.add(&task, &painted, &said(seen));
        }
    }
    failures.write("objects");
    let score = |what, hits, least| Score {
        what,
        value: share(hits, count),
        needed: Needed::AtLeast(least),
        of: count,
    };
    vec![
        score("an object in the hole, of the colour that was asked", colours, needed[0]),
        score("of that colour and that shape", both, needed[1]),
    ]
}

/// Without words the background goes on: the error against the truth, by that of the picture's mean colour.
pub fn empties(painter: &mut Painter, count: usize, most: f64) -> Vec<Score> {
    let (mut own, mut plain, mut failures) = (0.0, 0.0, Failures::default());
    for number in 0..count as u64 {
        let task = tasks::empty(number, painter.size);
        let painted = painter.paint(&task, How::default());
        let mean = mean_outside(&task);
        let filled = RgbImage::from_pixel(painted.width(), painted.height(), image::Rgb(mean));
        let (error, filling) =
            (error(&painted, &task.background, &task.hole), error(&filled, &task.background, &task.hole));
        own += error;
        plain += filling;
        println!("{number}: error {error:.1}, mean colour {filling:.1}");
        if error > filling.max(8.0) {
            failures.add(&task, &painted, &format!("error {error:.1}, mean colour {filling:.1}"));
        }
    }
    failures.write("empties");
    vec![Score {
        what: "no words: error in the hole, by that of the kept part's mean colour",
        value: own / plain.max(1e-9),
        needed: Needed::AtMost(most),
        of: count,
    }]
}

/// A reference picture: its colour or its shape is found in the hole, and is not where its scale is 0.
pub fn references(painter: &mut Painter, count: usize, least: f64, most_without: f64) -> Vec<Score> {
    let (mut with, mut without, mut failures) = (0, 0, Failures::default());
    let count = if painter.has_adapter() { count } else { 0 };
    for number in 0..count as u64 {
        let mut task = tasks::object(number ^ 0xF_0000, painter.size);
        task.prompt = OPEN_WORDS.into();
        let (colour, shape) = task.asked.unwrap();
        let alike = |seen: Option<Seen>| seen.is_some_and(|s| s.colour == colour || s.shape == shape);
        let mut run = |scale| {
            let painted = painter.paint(&task, How { reference: Some(scale), ..How::default() });
            let seen = look(&painted, &task.background, &task.hole);
            (painted, seen)
        };
        let (painted, seen) = run(1.0);
        let (_, unled) = run(0.0);
        with += usize::from(alike(seen));
        without += usize::from(alike(unled));
        println!(
            "{number}: {} {} -> {}, at scale 0 {}",
            COLOURS[colour].0,
            shape.name(),
            said(seen),
            said(unled)
        );
        if !alike(seen) {
            failures.add(&task, &painted, &said(seen));
        }
    }
    failures.write("references");
    let score = |what, hits, needed| Score { what, value: share(hits, count), needed, of: count };
    vec![
        score("the colour or the shape of the reference picture", with, Needed::AtLeast(least)),
        score("the same by chance, at scale 0", without, Needed::AtMost(most_without)),
    ]
}

/// A low strength keeps more of what was in the hole than a full one.
pub fn strengths(painter: &mut Painter, count: usize, least: f64) -> Vec<Score> {
    let mut hits = 0;
    for number in 0..count as u64 {
        let task = tasks::object(number ^ 0x5_0000, painter.size);
        let [low, full] = [0.3, 1.0].map(|strength| {
            let painted = painter.paint(&task, How { strength, ..How::default() });
            error(&painted, &task.picture, &task.hole)
        });
        println!("{number}: {low:.1} at 0.3, {full:.1} at 1");
        hits += usize::from(low < full);
    }
    vec![Score {
        what: "strength 0.3 keeps more of the hole than strength 1",
        value: share(hits, count),
        needed: Needed::AtLeast(least),
        of: count,
    }]
}

/// Mean absolute difference in the hole, in values of 0 to 255.
fn error(a: &RgbImage, b: &RgbImage, hole: &[bool]) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for ((a, b), _) in a.pixels().zip(b.pixels()).zip(hole).filter(|(_, hole)| **hole) {
        sum += (0..3).map(|i| f64::from(a.0[i].abs_diff(b.0[i]))).sum::<f64>();
        count += 3;
    }
    sum / count.max(1) as f64
}

/// What somebody would fill the hole with who only has one colour.
fn mean_outside(task: &Task) -> [u8; 3] {
    let (mut sum, mut count) = ([0.0; 3], 0usize);
    for (pixel, _) in task.picture.pixels().zip(&task.hole).filter(|(_, hole)| !**hole) {
        (0..3).for_each(|i| sum[i] += f64::from(pixel.0[i]));
        count += 1;
    }
    sum.map(|v| (v / count.max(1) as f64).round() as u8)
}

fn table(scores: &[Score]) -> String {
    let mut text = String::from("| what | measured | needed | pictures | |\n|---|---|---|---|---|\n");
    for score in scores {
        let (sign, bound) = match score.needed {
            Needed::AtLeast(least) => ("at least", least),
            Needed::AtMost(most) => ("at most", most),
        };
        let verdict = if score.is_reached() { "reached" } else { "missed" };
        writeln!(
            text,
            "| {} | {:.3} | {sign} {bound:.2} | {} | {verdict} |",
            score.what, score.value, score.of
        )
        .unwrap();
    }
    text
}

#[test]
fn the_whole_suite() {
    let Some(count) = variable("INFILL_EVALUATE") else {
        println!("INFILL_EVALUATE is not set: only the small part of the suite was run");
        return;
    };
    let number = |name: &str, default: usize| variable(name).map_or(default, |text| text.parse().unwrap());
    let count: usize = count.parse().unwrap();
    let (size, steps) = (number("INFILL_EVALUATE_SIZE", 512), number("INFILL_EVALUATE_STEPS", 12));
    let mut painter = Painter::open(size, steps).expect("this build has no model of its own");
    let began = Instant::now();
    let part = count.div_ceil(5);
    let parts = variable("INFILL_EVALUATE_PARTS");
    let asked = |name: &str| parts.as_ref().is_none_or(|parts| parts.split(' ').any(|part| part == name));
    for part in parts.iter().flat_map(|parts| parts.split(' ')) {
        assert!(
            ["objects", "empties", "references", "strengths"].contains(&part),
            "there is no part \"{part}\""
        );
    }
    let mut scores = Vec::new();
    if asked("objects") {
        scores.extend(objects(&mut painter, count, [0.95, 0.85]));
    }
    if asked("empties") {
        scores.extend(empties(&mut painter, part, 0.5));
    }
    if asked("references") {
        scores.extend(references(&mut painter, part, 0.8, 0.4));
    }
    if asked("strengths") {
        scores.extend(strengths(&mut painter, part, 0.95));
    }
    let table = table(&scores);
    println!("\n{size} x {size}, {steps} steps, {:.0} s\n\n{table}", began.elapsed().as_secs_f64());
    if let Some(path) = variable("INFILL_EVALUATE_TABLE") {
        std::fs::write(path, format!("At {size} x {size} in {steps} steps:\n\n{table}")).unwrap();
    }
    assert!(scores.iter().all(Score::is_reached), "\n{table}");
}

/// The bounds hold with room for the few pictures: they are there to notice a model or an engine that has stopped
/// painting, not to measure how well it paints.
#[test]
fn a_small_part_of_the_suite() {
    let Some(mut painter) = Painter::open(512, 10) else { return };
    let mut scores = objects(&mut painter, 8, [0.75, 0.25]);
    scores.extend(strengths(&mut painter, 2, 1.0));
    let table = table(&scores);
    println!("\n{table}");
    assert!(scores.iter().all(Score::is_reached), "\n{table}");
}

/// What a reference shows arrives in the hole; at scale 0 the picture is, bit for bit, the one without a reference.
#[test]
fn a_reference_arrives_and_at_scale_0_is_none() {
    let Some(mut painter) = Painter::open(512, 8) else { return };
    assert!(painter.has_adapter());
    // Of four, three may be alike by chance: a sixth of all are.
    let scores = references(&mut painter, 10, 0.5, 0.5);
    let table = table(&scores);
    println!("\n{table}");
    assert!(scores.iter().all(Score::is_reached), "\n{table}");
    let mut task = tasks::object(1, painter.size);
    task.prompt = OPEN_WORDS.into();
    let mut painted = |reference| painter.paint(&task, How { reference, ..How::default() });
    let without = painted(None);
    assert_eq!(painted(Some(0.0)), without);
    assert_ne!(painted(Some(1.0)), without);
}
