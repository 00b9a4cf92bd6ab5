#!/usr/bin/env bash
# From the committed weights to better ones in one go, for a GPU with many cores beside it: crops are drawn while the UNet
# trains at 256 px, then at 512 px; then the decoder, the export, the IP-Adapter, the LoRA and figures of what was reached.
#
#   ./all_stages.sh FOLDER [MINUTES]     FOLDER gets the whole model; about MINUTES (9) in all
#
# DEVICE (cuda), WORKERS (processes that draw; all cores but two), BATCH (256, at 256 px), PYTHON (python) can be set.
set -euo pipefail
set -m # so that a drawing process and its workers can be stopped together
cd "$(dirname "$0")"
folder=$1 minutes=${2:-9}
device=${DEVICE:-cuda} workers=${WORKERS:-$(($(nproc) - 2))} batch=${BATCH:-256} python=${PYTHON:-python}
mkdir -p "$folder/work"
folder=$(realpath "$folder") work=$(realpath "$folder")/work
cp -r ../model_index.json ../scheduler ../tokenizer ../tokenizer_2 ../text_encoder ../text_encoder_2 ../unet ../vae "$folder"

say() { printf '%(%H:%M:%S)T %s\n' -1 "$1"; }
part() { "$python" -c "print($minutes * $1)"; }
draw() { # SIZE WORKERS
  "$python" crops.py --out "$work/unet" --size "$1" --count 500000 --workers "$2" --device "$device" >"$work/crops-$1.log" 2>&1 &
  drawers+=("$!")
}
stop_drawing() {
  for drawer in "${drawers[@]}"; do kill -- "-$drawer" 2>/dev/null || true; done
  drawers=()
}
enough() { # SIZE SHARDS
  until [ "$(find "$work/unet" -name "$1-*.npz" 2>/dev/null | wc -l)" -ge "$2" ]; do sleep 1; done
}
train() { # SIZE MINUTES BATCH RATE FLOOR FROM
  say "training at $1 px"
  "$python" train_unet.py --data "$work/unet/$1-*.npz" --unet "$6" --words .. --out "$work/trained" --minutes "$2" --batch "$3" \
    --rate "$4" --floor "$5" --warmup 60 --save-every 1000000 --device "$device"
}
measure() { # SIZE
  "$python" progress.py --model "$folder" --trained "$folder" --size "$1" --count "${COUNT:-96}" --guidance 3 --device "$device" \
    --out "$folder/progress-$1.png"
}

say "drawing"
drawers=()
draw 256 $((workers - workers / 3))
draw 512 $((workers / 3))
trap stop_drawing EXIT
enough 256 "${SHARDS:-8}"
train 256 "$(part 0.4)" "$batch" 1.5e-3 0.2 ..
enough 512 1
train 512 "$(part 0.2)" $((batch / 4)) 5e-4 0.05 "$work/trained"
stop_drawing
cp -r ../text_encoder ../text_encoder_2 "$work/trained"
"$python" export.py --words "$work/trained" --vae "" --out "$folder"

say "decoder"
"$python" train_decoder.py --data "$work/unet/256-*.npz" --init "$folder" --out "$work/autoencoder" --batch 32 \
  --steps "${DECODER_STEPS:-500}" --workers "$workers" --device "$device"
"$python" finish_vae.py --keep-scale --vae "$work/autoencoder" --device "$device"
"$python" export.py --words "" --vae "$work/autoencoder" --out "$folder"
measure 256
measure 512

say "IP-Adapter"
"$python" train_ip_adapter.py --model "$folder" --out "$folder" --name-steps "${NAME_STEPS:-1500}" --steps "${ADAPTER_STEPS:-1200}" \
  --count "${ADAPTER_COUNT:-9000}" --batch 64 --workers "$workers" --device "$device"
say "LoRA"
"$python" train_lora.py --model "$folder" --out "$folder/loras" --steps "${LORA_STEPS:-400}" --count "${LORA_COUNT:-1000}" --device "$device"
say "done"
