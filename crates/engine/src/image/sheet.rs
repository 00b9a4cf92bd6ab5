//! Pictures side by side with captions: strips of one run, contact sheets of several.

use image::{Rgb, RgbImage, imageops};

use super::font;
use super::{Filter, Picture, resize};

/// The longest side of a picture on a sheet, in pixels; larger ones are made smaller.
pub const LARGEST_TILE: u32 = 1024;

const PAPER: Rgb<u8> = Rgb([250, 250, 248]);
const INK: Rgb<u8> = Rgb([36, 36, 38]);
const FRAME: Rgb<u8> = Rgb([176, 176, 178]);
/// What is at least this light at its edge gets a frame.
const LIGHT: u8 = 232;
/// Smaller pictures are enlarged by a whole number, as long as they stay within this side.
const SMALL_TILE: u32 = 256;
/// The most lines of a caption.
const LINES: usize = 2;

/// Rows of pictures.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// One row of a sheet.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Stands above the row where it is not empty.
    pub title: String,
    /// From left to right.
    pub tiles: Vec<Tile>,
}

/// One picture of a row.
#[derive(Debug, Clone)]
pub struct Tile {
    /// Stands below the picture, over as many as two lines; where that is not enough, what comes before its last comma is
    /// cut.
    pub caption: String,
    /// The picture, shown pixel by pixel where it is no larger than [`LARGEST_TILE`]; where all are small, each pixel as
    /// a square of several.
    pub pixels: RgbImage,
}

impl Sheet {
    /// The sheet as one picture. Columns and rows are as large as their largest picture.
    pub fn draw(&self) -> Picture {
        let all = self.rows.iter().flat_map(|row| &row.tiles).map(|tile| &tile.pixels);
        let longest = all.map(|pixels| pixels.width().max(pixels.height())).max().unwrap_or(1);
        let times = (SMALL_TILE / longest.max(1)).max(1);
        let rows: Vec<Vec<(RgbImage, &str)>> = self
            .rows
            .iter()
            .map(|row| {
                row.tiles.iter().map(|tile| (fitted(&tile.pixels, times), tile.caption.as_str())).collect()
            })
            .collect();
        let tiles = || rows.iter().flatten().map(|(pixels, _)| pixels);
        let column = tiles().map(RgbImage::width).max().unwrap_or(0);
        let columns = u32::try_from(rows.iter().map(Vec::len).max().unwrap_or(0)).unwrap_or(u32::MAX);
        let scale = if column >= 256 { 2 } else { 1 };
        let line = font::LINE * scale;
        let gap = 6 * scale;
        let heights: Vec<u32> =
            rows.iter().map(|row| row.iter().map(|(pixels, _)| pixels.height()).max().unwrap_or(0)).collect();
        let titles = || self.rows.iter().map(|row| if row.title.is_empty() { 0 } else { line + gap });
        let captions = line * LINES as u32 + gap;
        let height = gap + heights.iter().zip(titles()).map(|(h, t)| t + h + captions + gap).sum::<u32>();
        let mut sheet = RgbImage::from_pixel(gap + columns * (column + gap), height, PAPER);

        let mut y = gap;
        for ((row, (pixels, height)), title) in self.rows.iter().zip(rows.iter().zip(&heights)).zip(titles())
        {
            let width = sheet.width() - 2 * gap;
            if let Some(text) = font::lines(&row.title, width / (font::ADVANCE * scale), 1).first() {
                font::write(&mut sheet, text, gap, y, scale, INK);
            }
            y += title;
            let mut x = gap;
            for (pixels, caption) in pixels {
                if fades_into_the_paper(pixels) {
                    frame(&mut sheet, (x, y), pixels.dimensions());
                }
                imageops::replace(&mut sheet, pixels, i64::from(x), i64::from(y));
                let lines = font::lines(caption, column / (font::ADVANCE * scale), LINES);
                let mut below = y + height + gap / 2;
                for text in lines {
                    font::write(&mut sheet, &text, x, below, scale, INK);
                    below += line;
                }
                x += column + gap;
            }
            y += height + captions + gap;
        }
        Picture::from_rgb8(sheet)
    }
}

/// Whether the edge of a picture can hardly be told from the sheet.
fn fades_into_the_paper(pixels: &RgbImage) -> bool {
    let (width, height) = pixels.dimensions();
    let light = |x: u32, y: u32| pixels.get_pixel(x, y).0.iter().all(|&value| value >= LIGHT);
    (0..width).any(|x| light(x, 0) || light(x, height - 1))
        || (0..height).any(|y| light(0, y) || light(width - 1, y))
}

/// A thin line around a picture of this size at this place.
fn frame(sheet: &mut RgbImage, (x, y): (u32, u32), (width, height): (u32, u32)) {
    let mut dot = |x: u32, y: u32| {
        if let Some(pixel) = sheet.get_pixel_mut_checked(x, y) {
            *pixel = FRAME;
        }
    };
    for x in x - 1..=x + width {
        dot(x, y - 1);
        dot(x, y + height);
    }
    for y in y..y + height {
        dot(x - 1, y);
        dot(x + width, y);
    }
}

fn fitted(pixels: &RgbImage, times: u32) -> RgbImage {
    let longest = pixels.width().max(pixels.height());
    if times > 1 {
        let (width, height) = (pixels.width() * times, pixels.height() * times);
        return RgbImage::from_fn(width, height, |x, y| *pixels.get_pixel(x / times, y / times));
    }
    if longest <= LARGEST_TILE {
        return pixels.clone();
    }
    let side = |side: u32| {
        let exact = u64::from(side) * u64::from(LARGEST_TILE) / u64::from(longest);
        u32::try_from(exact).unwrap_or(LARGEST_TILE).max(1)
    };
    resize(pixels, side(pixels.width()), side(pixels.height()), Filter::Lanczos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(width: u32, height: u32, caption: &str) -> Tile {
        let pixels = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]));
        Tile { caption: caption.into(), pixels }
    }

    #[test]
    fn pictures_stand_on_the_sheet_pixel_by_pixel() {
        let row = Row { title: "two".into(), tiles: vec![tile(140, 130, "a"), tile(164, 120, "b")] };
        let sheet = Sheet { rows: vec![row.clone(), Row { title: String::new(), ..row }] }.draw().to_rgb8();
        assert_eq!(sheet.width(), 6 + 2 * (164 + 6));
        // The title's line and the gap come first.
        let top = 6 + font::LINE + 6;
        for (x, y) in [(0, 0), (139, 129), (17, 4)] {
            assert_eq!(sheet.get_pixel(6 + x, top + y).0, [x as u8, y as u8, 7]);
        }
        assert_eq!(sheet.get_pixel(6 + 164 + 6, top).0, [0, 0, 7]);
        let ink = sheet.pixels().filter(|pixel| **pixel == INK).count();
        assert!(ink > 60, "{ink} pixels of captions");
    }

    #[test]
    fn small_pictures_are_enlarged_by_a_whole_number() {
        let row = Row { title: String::new(), tiles: vec![tile(100, 64, ""), tile(50, 50, "")] };
        let sheet = Sheet { rows: vec![row] }.draw().to_rgb8();
        assert_eq!(sheet.width(), 6 + 2 * (200 + 6));
        assert_eq!(sheet.get_pixel(6 + 199, 6 + 127).0, [99, 63, 7]);
    }

    #[test]
    fn a_caption_that_is_cut_keeps_its_end() {
        let shown = |caption: &str| font::lines(caption, 20, LINES).join("|");
        assert_eq!(shown("a cat, seed 1"), "a cat, seed 1");
        assert_eq!(shown("after: a small cat, seed 1"), "after: a small cat,|seed 1");
        let long = "after: a small cat on a wall in the evening sun, seed 18446744073709551615";
        assert_eq!(shown(long), "after: a sma.., seed|18446744073709551615");
        assert_eq!(
            shown(&format!("{}, seed 7", "x".repeat(10_000))),
            format!("{}..,|seed 7", "x".repeat(17))
        );
        assert_eq!(shown(&"word ".repeat(9)), "word word word word|word word word wor..");
    }

    #[test]
    fn white_pictures_are_framed_and_others_are_not() {
        let corner = |grey: u8| {
            let pixels = RgbImage::from_pixel(140, 130, Rgb([grey; 3]));
            let row = Row { title: String::new(), tiles: vec![Tile { caption: String::new(), pixels }] };
            let sheet = Sheet { rows: vec![row] }.draw().to_rgb8();
            assert_eq!(sheet.get_pixel(6, 6).0, [grey; 3]);
            let around = [(5, 5), (146, 136), (5, 60), (70, 136)].map(|(x, y)| *sheet.get_pixel(x, y));
            assert!(around.iter().all(|pixel| *pixel == around[0]), "{around:?}");
            around[0]
        };
        assert_eq!((corner(255), corner(0)), (FRAME, PAPER));
    }

    #[test]
    fn nothing_is_drawn_beyond_the_sheet() {
        let long = "words ".repeat(80);
        let sheet = Sheet { rows: vec![Row { title: long.clone(), tiles: vec![tile(150, 8, &long)] }] };
        assert_eq!(sheet.draw().size().width, 162);
        assert_eq!(Sheet::default().draw().size().width, 6);
    }

    #[test]
    fn large_pictures_are_made_smaller() {
        let sheet = Sheet { rows: vec![Row { title: String::new(), tiles: vec![tile(3000, 1500, "")] }] };
        assert_eq!(sheet.draw().size().width, 1024 + 24);
    }
}
