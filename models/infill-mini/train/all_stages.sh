#!/usr/bin/env bash
# From the committed weights to better ones in one go, for a GPU with many cores beside it. Crops are drawn, the decoder and
# the image encoder are trained, and meanwhile the UNet learns, at 256 px and from the middle on at 512 px too; then the
# export, the IP-Adapter and figures of what was reached.
#
#   ./all_stages.sh FOLDER [MINUTES]     FOLDER gets the whole model; about MINUTES (9) in all
#
# DEVICE (cuda), WORKERS (processes that draw; all cores but three), BATCH (256, at 256 px), COMPILE (--compile, or empty) and
# PYTHON (python) can be set. HALF=beside does only what runs beside the UNet's training, HALF=main only the rest: so both
# can be started from different terminals.
set -euo pipefail
set -m # so that a process and its workers can be stopped together
cd "$(dirname "$0")"
folder=$1 minutes=${2:-9} half=${HALF:-both}
device=${DEVICE:-cuda} workers=${WORKERS:-$(($(nproc) - 3))} batch=${BATCH:-256} python=${PYTHON:-python}
some=$((workers / 5 > 0 ? workers / 5 : 1))
mkdir -p "$folder"
folder=$(realpath "$folder")
work=$folder/work
mkdir -p "$work/unet"
export OMP_NUM_THREADS=1

say() { printf '%(%H:%M:%S)T %s\n' -1 "$1"; }
part() { "$python" -c "print($minutes * $1)"; }
shards() { find "$work/unet" -name "$1-*.npz" | wc -l; }
running=()
beside() { # NAME SCRIPT ARGUMENTS...
  "$python" "${@:2}" --device "$device" >"$work/$1.log" 2>&1 &
  running+=("$!")
}
stop() {
  for process in "${running[@]}"; do kill -- "-$process" 2>/dev/null || true; done
}
trap stop EXIT

if [ "$half" != main ]; then
  say "drawing, image encoder, decoder"
  beside crops-256 crops.py --out "$work/unet" --size 256 --count 500000 --workers $((workers > 3 * some ? workers - 3 * some : 1))
  beside crops-512 crops.py --out "$work/unet" --size 512 --count 500000 --workers "$some"
  beside image-encoder train_image_encoder.py --out "$work/image_encoder" --minutes "$(part 0.35)" --workers "$some"
  encoder=${running[-1]}
  until [ "$(shards 256)" -ge "${SHARDS:-8}" ]; do sleep 1; done
  beside decoder train_decoder.py --data "$work/unet/256-*.npz" --init .. --out "$work/autoencoder" --side "${SIDE:-256}" --batch 8 \
    --minutes "$(part 0.45)" --workers "$some"
  decoder=${running[-1]}
  if [ "$half" = beside ]; then wait; fi
fi
if [ "$half" != beside ]; then
  say "UNet"
  mkdir -p "$work/trained"
  cp -r ../text_encoder ../text_encoder_2 "$work/trained"
  until [ "$(shards 256)" -ge "${SHARDS:-8}" ]; do sleep 1; done
  "$python" train_unet.py --data "$work/unet/256-*.npz" "$work/unet/512-*.npz" --late 0.5 --unet .. --words .. --out "$work/trained" \
    --minutes "$(part 0.6)" --batch "$batch" --rate "${RATE:-1.5e-3}" --floor 0.03 --warmup 60 --save-every 1000000 ${COMPILE---compile} \
    --device "$device"
  if [ "$half" = both ]; then wait "$encoder" "$decoder"; fi
  say "export"
  cp -r ../tokenizer ../tokenizer_2 "$folder"
  "$python" export.py --words "$work/trained" --vae "$work/autoencoder" --out "$folder"
  say "IP-Adapter"
  for size in 256 512; do
    beside "progress-$size" progress.py --model "$folder" --trained "$folder" --size "$size" --count "${COUNT:-96}" --guidance 3 \
      --out "$folder/progress-$size.png"
  done
  beside vae-figures finish_vae.py --keep-scale --vae "$work/autoencoder"
  measured=("${running[@]: -3}")
  "$python" train_ip_adapter.py --model "$folder" --image-encoder "$work/image_encoder" --data "$work/unet/256-*.npz" --out "$folder" \
    --minutes "$(part 0.15)" --batch 64 --workers "$workers" --device "$device"
  wait "${measured[@]}"
  cat "$work"/progress-*.log "$work/vae-figures.log"
  say "done; the LoRA is trained with train_lora.py --model $folder"
fi
