//! Each parameter that both tools have, shown by what it does, for both tools: the table in `docs/parameters.md` names
//! these tests. The second tool is given a reference.

use std::path::Path;

use image::RgbImage;
use infill_store::{Asset, Store};
use serde_json::{Value, json};

use crate::harness::{REFERENCE_TOOL, Server, TOOL, arguments, files, fixture, pixels, text, url};
use crate::room::{Room, data_url, with_reference};

const MODEL: &str = "tiny-sd15-inpaint";
const NOWHERE: &str = "asset_AAAAAAAAAAAAAAAAAAAAAA";

/// One of the tools over a room of its own.
struct Bench {
    room: Room,
    server: Server,
    tool: &'static str,
}

/// Does the same with each tool.
fn with_both(show: impl Fn(&mut Bench)) {
    for tool in [TOOL, REFERENCE_TOOL] {
        let room = Room::with_adapters(&[MODEL, "tiny-sd15-base"]);
        let mut bench = Bench { server: room.start(), room, tool };
        show(&mut bench);
        assert!(bench.server.finish().success());
    }
}

impl Bench {
    /// A call with changes; a null takes an argument away.
    #[track_caller]
    fn call(&mut self, changes: &Value) -> Value {
        // In the picture's proportions, so that there is nothing to note.
        let size = json!({"width": 88, "height": 64});
        let mut all = if self.tool == TOOL { arguments(&size) } else { with_reference(&size) };
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.server.call_tool(self.tool, &all)
    }

    /// The first picture of a call with changes.
    #[track_caller]
    fn picture(&mut self, changes: &Value) -> RgbImage {
        pixels(&self.call(changes)).remove(0)
    }

    /// The note that a call with changes brings.
    #[track_caller]
    fn note(&mut self, changes: &Value) -> String {
        let result = self.call(changes);
        assert_eq!(result["isError"], false, "{result}");
        let told = text(&result);
        let notes: Vec<&str> = told.lines().filter(|line| line.starts_with("Note: ")).collect();
        assert_eq!(notes.len(), 1, "{told}");
        notes[0].to_owned()
    }

    /// The sentence that refuses a call with changes.
    #[track_caller]
    fn refusal(&mut self, changes: &Value) -> String {
        let result = self.call(changes);
        let told = text(&result);
        assert!(result["isError"] == true && told.lines().count() == 1, "{told}");
        told
    }

    fn store(&self) -> Store {
        Store::open(&self.room.store()).unwrap()
    }

    fn asset(&self, id: &Value) -> Asset {
        self.store().get(&id.as_str().unwrap().parse().unwrap()).unwrap()
    }
}

fn input() -> RgbImage {
    image::open(fixture("images/init.png")).unwrap().to_rgb8()
}

/// How many pixels differ from the input's where the mask is black, and where it is white.
fn changed(picture: &RgbImage, mask: &str) -> (usize, usize) {
    let input = input();
    let mask = image::open(fixture(mask)).unwrap().to_luma8();
    let mut counts = (0, 0);
    for (x, y, pixel) in picture.enumerate_pixels() {
        if pixel != input.get_pixel(x, y) {
            if mask.get_pixel(x, y).0[0] == 0 { counts.0 += 1 } else { counts.1 += 1 }
        }
    }
    counts
}

#[test]
fn image_is_an_asset_a_file_or_a_data_url() {
    with_both(|bench| {
        let by_url = bench.call(&json!({}));
        let made = pixels(&by_url);
        let id = &by_url["structuredContent"]["inference"]["imageId"];
        for image in [json!(data_url("images/init.png")), json!(fixture("images/init.png")), id.clone()] {
            assert_eq!(pixels(&bench.call(&json!({ "image": image }))), made);
        }
        assert_ne!(bench.picture(&json!({"image": url("images/mask_rgb.png")})), made[0]);
        assert!(bench.refusal(&json!({"image": NOWHERE})).starts_with("image is asset_A"));
        assert!(bench.refusal(&json!({"image": null})).starts_with("image is missing; allowed: an asset id"));
    });
}

#[test]
fn image_id_stands_in_for_image_and_loses_to_it() {
    with_both(|bench| {
        let result = bench.call(&json!({}));
        let id = result["structuredContent"]["inference"]["imageId"].clone();
        assert_eq!(pixels(&bench.call(&json!({"image": null, "imageId": id}))), pixels(&result));
        let note = bench.note(&json!({"imageId": NOWHERE}));
        assert_eq!(note, "Note: imageId has no effect, since image is given.");
        let told = bench.refusal(&json!({"image": null, "imageId": url("images/init.png")}));
        assert!(told.starts_with("imageId: "), "{told}");
    });
}

#[test]
fn mask_says_where_to_paint() {
    with_both(|bench| {
        for mask in ["images/mask.png", "images/mask_small.png"] {
            let (kept, painted) = changed(&bench.picture(&json!({ "mask": url(mask) })), mask);
            assert!(kept == 0 && painted > 0, "{mask}: {kept} {painted}");
        }
        assert!(bench.refusal(&json!({"mask": url("images/mask_none.png")})).starts_with("mask is "));
        assert!(
            bench.refusal(&json!({"mask": url("images/raccoon-mask.png")})).starts_with("mask is 1024x768")
        );
        assert!(bench.refusal(&json!({"mask": null})).starts_with("mask is missing; "));
    });
}

#[test]
fn mask_id_stands_in_for_mask_and_loses_to_it() {
    with_both(|bench| {
        let result = bench.call(&json!({}));
        let id = result["structuredContent"]["inference"]["maskId"].clone();
        assert_eq!(pixels(&bench.call(&json!({"mask": null, "maskId": id}))), pixels(&result));
        assert_eq!(
            bench.note(&json!({"maskId": NOWHERE})),
            "Note: maskId has no effect, since mask is given."
        );
    });
}

#[test]
fn image_parent_id_is_recorded_of_a_data_url() {
    with_both(|bench| {
        let parent = bench.call(&json!({}))["structuredContent"]["job"]["metadata"]["assetIds"][0].clone();
        // Another picture: one that is stored already keeps its parent.
        let image = data_url("images/mask_rgb.png");
        let result = bench.call(&json!({"image": image, "imageParentId": parent}));
        let stored = bench.asset(&result["structuredContent"]["inference"]["imageId"]);
        assert_eq!(json!(stored.meta.parent.unwrap().as_str()), parent);
        let note = bench.note(&json!({ "imageParentId": parent }));
        assert_eq!(note, "Note: imageParentId has no effect, since image is not a data URL.");
        assert!(bench.refusal(&json!({"imageParentId": "a"})).starts_with("imageParentId: "));
    });
}

#[test]
fn image_hide_keeps_a_data_url_out_of_listings() {
    with_both(|bench| {
        let image = data_url("images/init.png");
        for (hide, hidden) in [(json!(true), true), (json!(false), false)] {
            let result = bench.call(&json!({"image": image, "imageHide": hide}));
            let stored = bench.asset(&result["structuredContent"]["inference"]["imageId"]);
            assert_eq!(stored.meta.hidden, hidden);
        }
        let note = bench.note(&json!({"imageHide": true}));
        assert_eq!(note, "Note: imageHide has no effect, since image is not a data URL.");
    });
}

#[test]
fn hide_results_keeps_results_out_of_listings() {
    with_both(|bench| {
        for (hide, seed) in [(true, "1"), (false, "2")] {
            let result = bench.call(&json!({"hideResults": hide, "seed": seed}));
            // Hidden or not, the reply has them.
            assert_eq!(files(&result).len(), 1);
            let structure = &result["structuredContent"];
            assert_eq!(structure["inference"]["hideResults"], hide);
            assert_eq!(bench.asset(&structure["job"]["metadata"]["assetIds"][0]).meta.hidden, hide);
        }
    });
}

#[test]
fn original_assets_are_what_is_linked_anyway() {
    with_both(|bench| {
        let made = bench.call(&json!({}));
        let asked = bench.call(&json!({"originalAssets": "true"}));
        assert_eq!(files(&asked), files(&made));
        assert!(text(&asked).contains("Note: originalAssets has no effect: the linked pictures always are"));
        assert!(!text(&bench.call(&json!({"originalAssets": "false"}))).contains("Note: "));
        assert!(bench.refusal(&json!({"originalAssets": true})).starts_with("originalAssets is true; "));
    });
}

#[test]
fn dry_run_runs_nothing() {
    with_both(|bench| {
        let dry = bench.call(&json!({"dryRun": "true"}));
        assert!(dry["isError"] == false && text(&dry).contains("nothing was run"), "{dry}");
        assert_eq!(dry["structuredContent"]["creativeUnitsCost"], 0);
        assert!(bench.refusal(&json!({"dryRun": "true", "strength": 2})).starts_with("strength is 2"));
        let lcm = json!({"dryRun": "true", "scheduler": "LCMScheduler", "numInferenceSteps": 60});
        assert!(bench.refusal(&lcm).starts_with("numInferenceSteps is 60; allowed: 1 to 50, "));
        assert!(bench.store().list(true).unwrap().is_empty() && bench.store().jobs().unwrap().is_empty());
        assert_eq!(files(&bench.call(&json!({"dryRun": "false"}))).len(), 1);
        assert!(bench.refusal(&json!({"dryRun": "yes"})).starts_with("dryRun is \"yes\"; allowed: "));
    });
}

#[test]
fn prompt_changes_the_picture() {
    with_both(|bench| {
        let hat = bench.picture(&json!({}));
        assert_ne!(bench.picture(&json!({"prompt": "a blue car"})), hat);
        assert_ne!(bench.picture(&json!({"prompt": "a (red:1.5) hat"})), hat);
        let long = bench.refusal(&json!({"prompt": "a".repeat(10_001)}));
        assert!(long.starts_with("prompt is 10001 characters long; allowed: up to 10000"), "{long}");
        assert!(bench.refusal(&json!({"prompt": null})).starts_with("prompt is missing; "));
    });
}

#[test]
fn negative_prompt_changes_the_picture_where_guidance_reads_it() {
    with_both(|bench| {
        let without = bench.picture(&json!({}));
        assert_ne!(bench.picture(&json!({"negativePrompt": "((ugly face))"})), without);
        let without = bench.picture(&json!({"guidance": 0.5}));
        let change = json!({"guidance": 0.5, "negativePrompt": "((ugly face))"});
        assert_eq!(bench.picture(&change), without);
        let note = bench.note(&change);
        assert!(note.contains("the negative prompt does nothing"), "{note}");
    });
}

#[test]
fn seed_makes_the_same_picture_again() {
    with_both(|bench| {
        let made = bench.picture(&json!({"seed": "-1"}));
        assert_eq!(bench.picture(&json!({"seed": "18446744073709551615"})), made);
        assert_ne!(bench.picture(&json!({"seed": "8"})), made);
        let drawn = bench.call(&json!({"seed": null}));
        let seed = drawn["structuredContent"]["inference"]["seed"].clone();
        assert!(text(&drawn).contains(&format!("seed {}, ", seed.as_str().unwrap())));
        assert_eq!(pixels(&bench.call(&json!({ "seed": seed }))), pixels(&drawn));
        assert!(bench.refusal(&json!({"seed": "seven"})).starts_with("seed is \"seven\"; allowed: "));
        assert!(bench.refusal(&json!({"seed": 7})).starts_with("seed is 7; allowed: a string"));
    });
}

#[test]
fn strength_says_how_much_may_change() {
    with_both(|bench| {
        let change = |strength: f64| json!({"strength": strength, "numInferenceSteps": 4});
        let far = |picture: &RgbImage| -> u64 {
            picture.as_raw().iter().zip(input().as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
        };
        let (little, much) = (bench.picture(&change(0.25)), bench.picture(&change(1.0)));
        assert!(far(&little) < far(&much), "{} {}", far(&little), far(&much));
        assert_eq!(bench.picture(&json!({"strength": null})), bench.picture(&json!({"strength": 0.75})));
        for (strength, told) in [(json!(0), "strength is 0;"), (json!(1.01), "strength is 1.01;")] {
            assert!(bench.refusal(&json!({ "strength": strength })).starts_with(told));
        }
    });
}

#[test]
fn guidance_says_how_closely_the_words_are_followed() {
    with_both(|bench| {
        let own = bench.picture(&json!({}));
        assert_eq!(bench.picture(&json!({"guidance": 7.5})), own);
        assert_ne!(bench.picture(&json!({"guidance": 2})), own);
        for guidance in [json!(-1), json!(20.5)] {
            let told = bench.refusal(&json!({ "guidance": guidance }));
            assert_eq!(told, format!("guidance is {guidance}; allowed: a number from 0 to 20"));
        }
    });
}

#[test]
fn num_inference_steps_are_made() {
    with_both(|bench| {
        let three = bench.picture(&json!({}));
        assert_ne!(bench.picture(&json!({"numInferenceSteps": 5})), three);
        let dry = bench.call(&json!({"numInferenceSteps": null, "strength": 1, "dryRun": "true"}));
        assert!(text(&dry).contains("30 steps each"), "{dry}");
        for steps in [json!(0), json!(151), json!(2.5)] {
            let told = bench.refusal(&json!({ "numInferenceSteps": steps }));
            assert_eq!(told, format!("numInferenceSteps is {steps}; allowed: a whole number from 1 to 150"));
        }
    });
}

#[test]
fn num_samples_are_made_of_seeds_one_after_the_other() {
    with_both(|bench| {
        let three = bench.call(&json!({"numSamples": 3}));
        let made = pixels(&three);
        assert_eq!(made.len(), 3);
        assert_eq!(bench.picture(&json!({"seed": "9"})), made[2]);
        assert_eq!(files(&bench.call(&json!({"numSamples": null}))).len(), 4);
        for samples in [json!(0), json!(129), json!("4")] {
            assert!(bench.refusal(&json!({ "numSamples": samples })).starts_with("numSamples is "));
        }
    });
}

#[test]
fn width_and_height_are_the_size_that_is_worked_at() {
    with_both(|bench| {
        let square = bench.picture(&json!({}));
        assert_ne!(bench.picture(&json!({"width": 96, "height": 64})), square);
        // The picture's own, in multiples of 8, without them.
        let own = bench.call(&json!({"width": null, "height": null}));
        let inference = &own["structuredContent"]["inference"];
        assert_eq!((&inference["width"], &inference["height"]), (&json!(152), &json!(104)));
        assert_eq!(pixels(&own)[0].dimensions(), input().dimensions());
        let note = bench.note(&json!({"width": 64}));
        assert!(note.contains("150x106 pixels and was squeezed to 64x64"), "{note}");
        for name in ["width", "height"] {
            for (side, allowed) in [
                (68, "a multiple of 8 from 64 to 1024 for an SD 1.5"),
                (1032, "a multiple of 8 from 64 to 1024 for"),
            ] {
                let told = bench.refusal(&json!({ name: side }));
                assert!(told.starts_with(&format!("{name} is {side}; allowed: {allowed}")), "{told}");
            }
        }
    });
}

#[test]
fn model_id_names_what_runs() {
    with_both(|bench| {
        let made = bench.picture(&json!({}));
        assert_ne!(bench.picture(&json!({"modelId": "tiny-sd15-base"})), made);
        let folder = bench.room.models().join(MODEL);
        assert_eq!(bench.picture(&json!({ "modelId": folder })), made);
        let told = bench.refusal(&json!({"modelId": "no-such"}));
        assert!(
            told.starts_with(
                "modelId is \"no-such\"; allowed: a model that is here (infill-mini, tiny-sd15-base, "
            ),
            "{told}"
        );
        let outside = bench.refusal(&json!({"modelId": fixture("models/tiny-sdxl-base")}));
        assert!(outside.contains("what exists under "), "{outside}");
        assert!(bench.refusal(&json!({"modelId": null})).starts_with("modelId is missing; "));
    });
}

#[test]
fn scheduler_takes_the_place_of_the_models_own() {
    with_both(|bench| {
        let own: Value = serde_json::from_slice(
            &std::fs::read(
                bench.room.models().join(Path::new(MODEL).join("scheduler/scheduler_config.json")),
            )
            .unwrap(),
        )
        .unwrap();
        let made = bench.picture(&json!({}));
        assert_eq!(bench.picture(&json!({"scheduler": own["_class_name"]})), made);
        for other in ["EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"] {
            assert_ne!(bench.picture(&json!({ "scheduler": other })), made, "{other}");
        }
        let told = bench.refusal(&json!({"scheduler": "Euler"}));
        assert!(told.starts_with("scheduler is \"Euler\"; allowed: DDIMScheduler, "), "{told}");
    });
}

#[test]
fn disable_merging_gives_the_models_whole_picture() {
    with_both(|bench| {
        let (kept, painted) = changed(&bench.picture(&json!({"disableMerging": false})), "images/mask.png");
        assert!(kept == 0 && painted > 0, "{kept} {painted}");
        let (kept, _) = changed(&bench.picture(&json!({"disableMerging": true})), "images/mask.png");
        assert!(kept > 0, "{kept}");
    });
}

#[test]
fn what_only_flux_models_have_is_refused_or_noted() {
    with_both(|bench| {
        let made = bench.picture(&json!({}));
        for (name, harmless, harmful) in [
            ("modelEpoch", json!(""), json!("000001")),
            ("baseModelId", json!(MODEL), json!("flux.1-dev")),
            ("negativePromptStrength", json!(0), json!(0.5)),
        ] {
            let result = bench.call(&json!({ name: harmless }));
            assert!(
                text(&result).contains(&format!("Note: {name} has no effect, since only Flux")),
                "{result}"
            );
            assert_eq!(pixels(&result)[0], made);
            let told = bench.refusal(&json!({ name: harmful }));
            assert!(told.starts_with(&format!("{name} is {harmful}, which only Flux")), "{told}");
        }
    });
}

#[test]
fn intermediate_images_are_listed_and_change_no_result() {
    with_both(|bench| {
        let made = bench.picture(&json!({}));
        assert_eq!(bench.picture(&json!({"intermediateImages": false})), made);
        assert_eq!(bench.picture(&json!({"intermediateImages": true})), made);
        let result = bench.call(&json!({"intermediateImages": true}));
        let listed = &result["structuredContent"]["job"]["metadata"]["previewAssetIds"];
        assert!(!listed.as_array().unwrap().is_empty() && !text(&result).contains("Note: "), "{result}");
    });
}
