//! A checkpoint's JSON from anywhere: index, scheduler and network configurations.
#![no_main]

use infill_engine::scheduler::{Scheduler, SchedulerConfig, StepOptions};
use infill_models::Checkpoint;
use infill_networks::unet::UNet2DConditionConfig;
use infill_networks::vae::AutoencoderKlConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model_index.json"), bytes).unwrap();
    let _ = Checkpoint::open(folder.path());
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    if let Ok(config) = SchedulerConfig::from_json(&json) {
        let _ = Scheduler::new(&config, 5, StepOptions::default());
    }
    let _ = UNet2DConditionConfig::from_json("unet", &json);
    let _ = AutoencoderKlConfig::from_json("vae", &json);
});
