//! How near is near enough, and which tensor is the first that is not.

use std::fmt;

use candle_core::{DType, Device, Tensor};

use crate::case::Case;

/// How many times the noise floor a tensor may be away. The floor is what float32 itself does to diffusers.
const FLOORS: f64 = 10.0;
/// How many times diffusers' own error a half-precision tensor may be away: another order of rounding, no more.
const HALF_ERRORS: f64 = 3.0;
/// Half a unit in the last place of 1.0: one rounding to float32.
const ROUNDING: f64 = 1.0 / 16_777_216.0;
/// The largest difference of two pictures, in steps of 255.
pub const PICTURE: f64 = 1.0;

/// One tensor against its reference.
pub struct Row {
    /// Its name in the reference.
    pub name: String,
    /// The largest difference; infinite where a shape differs or a value is not a number.
    pub worst: f64,
    /// The largest difference that passes.
    pub allowed: f64,
    /// Where it lies, or what is wrong with the shape.
    pub place: String,
}

impl Row {
    /// True within what is allowed.
    pub fn passes(&self) -> bool {
        self.worst <= self.allowed
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2e} away, {:.2e} allowed, {}", self.name, self.worst, self.allowed, self.place)
    }
}

/// The largest difference that the tensor `name` of `case` may show in the format `dtype`.
pub fn allowed(case: &Case, name: &str, dtype: DType) -> f64 {
    if name == "out/image_u8" {
        return picture_allowed(case, dtype);
    }
    let group = group(name);
    let (floor, largest) = floor(case, &group);
    // Where diffusers computes in the same order in f32 and f64 the recorded floor is zero; one rounding of the largest
    // value is then the least that another order of the same operations can show.
    let single = FLOORS * floor.max(largest * ROUNDING);
    match case.half_floor(dtype, &group) {
        Some(half) => single.max(HALF_ERRORS * half),
        None => single,
    }
}

/// The floor of a group; `cond/ip_tokens.0` may stand under `cond/ip_tokens`, for all adapters.
fn floor(case: &Case, group: &str) -> (f64, f64) {
    let shared = group.rsplit_once('.').map_or(group, |(shared, _)| shared);
    case.floor.get(group).or_else(|| case.floor.get(shared)).copied().unwrap_or((0.0, 0.0))
}

fn picture_allowed(case: &Case, dtype: DType) -> f64 {
    case.half_floor(dtype, "out/image_u8").map_or(PICTURE, |half| PICTURE.max(HALF_ERRORS * half))
}

/// `step.3/unet_out` and `step.0/unet_out` share a floor: the number goes.
fn group(name: &str) -> String {
    match name.split_once('/') {
        Some((stage, rest)) => {
            let stage = stage.split_once('.').map_or(stage, |(stage, _)| stage);
            format!("{stage}/{rest}")
        }
        None => name.to_owned(),
    }
}

/// Compares a tensor with the reference's tensor of this name.
///
/// The reference holds what the UNet was fed, which with guidance is the same values twice; a smaller batch here is
/// compared with each of its repetitions.
pub fn compare(case: &Case, name: &str, ours: &Tensor, dtype: DType) -> Row {
    let reference = case.tensor(name);
    let row = |worst, place| Row { name: name.into(), worst, allowed: allowed(case, name, dtype), place };
    let (mine, theirs) = (ours.dims(), reference.dims());
    let repeats = match (mine.first(), theirs.first()) {
        (Some(&m), Some(&t)) if m > 0 && t % m == 0 && mine[1..] == theirs[1..] => t / m,
        _ if mine == theirs => 1,
        _ => return row(f64::INFINITY, format!("its shape is {mine:?}, the reference's {theirs:?}")),
    };
    let (ours, theirs) = (values(ours), values(&reference));
    let ours = ours.iter().cycle().take(ours.len() * repeats);
    let (index, worst) = ours
        .zip(&theirs)
        .map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() })
        .map(|d| if d.is_nan() { f64::INFINITY } else { d })
        .enumerate()
        .fold((0, 0.0), |best, (i, d)| if d > best.1 { (i, d) } else { best });
    row(worst, format!("at value {index} of {} {:?}", theirs.len(), reference.dims()))
}

/// Every value as f64, on the host.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().flatten_all().unwrap();
    tensor.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The rows of one case, in the order of computation.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds a comparison where the reference has a tensor of this name. Noise in half precision is rounded after it is
    /// drawn, so only f32's is the reference's bit for bit.
    pub fn check(&mut self, case: &Case, name: &str, ours: &Tensor, dtype: DType) {
        let rounded = name.starts_with("noise.") && dtype != DType::F32;
        if case.has(name) && !rounded {
            self.rows.push(compare(case, name, ours, dtype));
        }
    }

    /// The first tensor that differs.
    pub fn first_difference(&self) -> Option<&Row> {
        self.rows.iter().find(|row| !row.passes())
    }

    /// The worst difference among the tensors whose names end so.
    pub fn worst(&self, ending: &str) -> f64 {
        self.rows.iter().filter(|r| r.name.ends_with(ending)).map(|r| r.worst).fold(0.0, f64::max)
    }

    /// True if a tensor of this name was compared.
    pub fn compared(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name)
    }
}

/// Fails with one line for each case that differs: the first tensor, and how many after it.
pub fn assert_all_pass(reports: &[(String, Report)]) {
    let failures: Vec<String> = reports
        .iter()
        .filter_map(|(case, report)| {
            let first = report.first_difference()?;
            let others = report.rows.iter().filter(|row| !row.passes()).count() - 1;
            Some(format!("{case}: the first tensor that differs is {first} (and {others} more)"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases differ\n{}",
        failures.len(),
        reports.len(),
        failures.join("\n")
    );
    for (case, report) in reports {
        assert!(!report.rows.is_empty(), "{case}: nothing was compared");
    }
}
