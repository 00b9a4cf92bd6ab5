//! Pictures on the way: told, stored, and without any effect on the finished ones.

use infill_store::{AssetId, Store};
use serde_json::{Value, json};

use crate::harness::{Server, TOOL, arguments, files, fixture};

fn previews(result: &Value) -> Vec<AssetId> {
    let ids = result["structuredContent"]["job"]["metadata"]["previewAssetIds"].as_array();
    ids.into_iter().flatten().map(|id| id.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn pictures_are_shown_on_the_way_and_the_finished_ones_do_not_depend_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let asked = json!({"numSamples": 2, "numInferenceSteps": 5, "strength": 1, "intermediateImages": true});
    let params = json!({"name": TOOL, "_meta": {"progressToken": "p"}, "arguments": arguments(&asked)});
    let watched = server.request("tools/call", &params)["result"].clone();
    let shown = previews(&watched);
    assert_eq!(watched["structuredContent"]["inference"]["intermediateImages"], true);
    let told: Vec<&str> =
        server.notifications.iter().filter_map(|note| note["params"]["message"].as_str()).collect();
    // Of the few steps each but the last, of two pictures. Some schedulers take a step more than was asked.
    let steps = told.iter().find_map(|message| message.split_once("step 1 of ")?.1.parse::<usize>().ok());
    assert_eq!(shown.len(), 2 * (steps.unwrap() - 1), "{watched}");
    for id in &shown {
        assert!(told.iter().any(|message| message.ends_with(&format!(", preview {id}"))), "{id}: {told:?}");
    }
    let values: Vec<f64> =
        server.notifications.iter().filter_map(|note| note["params"]["progress"].as_f64()).collect();
    assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");

    let store = Store::open(dir.path()).unwrap();
    let parent: AssetId =
        watched["structuredContent"]["inference"]["imageId"].as_str().unwrap().parse().unwrap();
    for id in &shown {
        let asset = store.get(id).unwrap();
        assert!(asset.meta.hidden && asset.meta.passing, "{asset:?}");
        assert_eq!(asset.meta.parent.as_ref(), Some(&parent));
        let picture = image::load_from_memory(&store.bytes(id).unwrap()).unwrap();
        assert_eq!(Some(picture.width()), asset.meta.width);
    }

    // The same call unwatched gives the very files of the watched one.
    let alone = json!({"numSamples": 2, "numInferenceSteps": 5, "strength": 1});
    let alone = server.call(&arguments(&alone));
    assert_eq!(files(&alone), files(&watched));
    assert!(previews(&alone).is_empty());
    assert!(server.finish().success());
}

#[test]
fn a_preview_is_the_picture_itself_outside_the_mask() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let asked = json!({"numInferenceSteps": 4, "strength": 1, "intermediateImages": true});
    let result = server.call(&arguments(&asked));
    let store = Store::open(dir.path()).unwrap();
    let mask = image::open(fixture("images/mask.png")).unwrap().to_luma8();
    let finished = image::open(&files(&result)[0]).unwrap();
    let mut compared = 0;
    for id in previews(&result) {
        let preview = image::load_from_memory(&store.bytes(&id).unwrap()).unwrap().to_rgb8();
        let side = 64 / preview.width();
        let finished = finished.resize_exact(64, 64, image::imageops::FilterType::Triangle).to_rgb8();
        let masked = |x, y| mask.get_pixel(x * mask.width() / 64, y * mask.height() / 64).0[0] > 0;
        for (x, y, pixel) in preview.enumerate_pixels() {
            let far = |at: u32| (at * side).saturating_sub(8)..(at * side + side + 8).min(64);
            let kept = far(x).all(|x| far(y).all(|y| !masked(x, y)));
            if !kept {
                continue;
            }
            compared += 1;
            for channel in 0..3 {
                let square = (0..side * side)
                    .map(|at| finished.get_pixel(x * side + at % side, y * side + at / side).0[channel]);
                let mean = square.map(f64::from).sum::<f64>() / f64::from(side * side);
                assert!((mean - f64::from(pixel.0[channel])).abs() < 24.0, "at {x}, {y}: {mean}, {pixel:?}");
            }
        }
    }
    assert!(compared > 0, "the mask leaves nothing to compare");
    assert!(server.finish().success());
}
