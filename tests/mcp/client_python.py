#!/usr/bin/env python3
"""Tries `infill serve` as a host would, with the official Python client of MCP over stdio and over HTTP.

    client_python.py INFILL

Lists the tools and compares their schemas with the reference's, runs the first with a data URL and with a file URL, the
second with references from data URLs, a file URL and assets, with and without the 2026-07-28 protocol, looks at the
pictures, the progress and the structure, then tries bad arguments, a dry run, a cancelled run and a result as the next
picture; then the first tool over HTTP. Prints one line per check; the first that fails ends it.
"""
import asyncio
import base64
import json
import os
import pathlib
import shutil
import sys
import tempfile

import jsonschema
from mcp import Client, StdioServerParameters

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures"
TOOL = "post-inpaint-inferences"
REFERENCE_TOOL = "post-inpaint-ip-adapter-inferences"
IMAGE = FIXTURES / "images/init.png"
MASK = FIXTURES / "images/mask.png"
LOOK, OTHER_LOOK = FIXTURES / "images/coffee.png", FIXTURES / "images/chelsea.png"


def check(what, true, shown=None):
    print(f"{'ok' if true else 'FAILED':6} {what}", flush=True)
    if not true:
        print(shown or "", flush=True)
        # The client's task groups would bury an exception.
        os._exit(1)


def data_url(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def texts(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


def blocks(result, kind):
    return [block for block in result.content if block.type == kind]


def stored(result):
    """The full picture behind the first link."""
    from urllib.parse import unquote, urlparse

    return pathlib.Path(unquote(urlparse(str(blocks(result, "resource_link")[0].uri)).path))


def arguments(**more):
    return {"modelId": "tiny-sd15-inpaint", "prompt": "a red hat", "seed": "7", "numSamples": 1,
            "numInferenceSteps": 3, "width": 64, "height": 64, **more}


async def session(client, tool, label):
    seen = []

    async def progress(done, total, message):
        seen.append((done, total, message))

    by_data = await client.call_tool(
        TOOL, arguments(image=data_url(IMAGE), mask=data_url(MASK)), progress_callback=progress)
    check(f"{label}: a data URL gives a picture", not by_data.is_error and stored(by_data).is_file(), by_data)
    png = stored(by_data).read_bytes()
    check(f"{label}: the picture is a PNG", png.startswith(b"\x89PNG"))
    preview = blocks(by_data, "image")
    check(f"{label}: one JPEG preview", len(preview) == 1 and preview[0].mime_type == "image/jpeg"
          and base64.b64decode(preview[0].data).startswith(b"\xff\xd8"))
    link = blocks(by_data, "resource_link")[0]
    check(f"{label}: the link is for the user", [str(a) for a in link.annotations.audience] == ["user"])
    check(f"{label}: text, previews, links, in this order",
          [block.type for block in by_data.content] == ["text", "image", "resource_link"])
    structure = by_data.structured_content
    jsonschema.validate(structure, tool.output_schema)
    check(f"{label}: the structure fits the output schema", structure["job"]["status"] == "success")
    check(f"{label}: it has no base64", "base64" not in json.dumps(structure))
    asset = structure["job"]["metadata"]["assetIds"][0]
    line = texts(by_data).splitlines()[0]
    check(f"{label}: the text suffices", asset in line and str(stored(by_data)) in line and "seed 7" in line)
    values = [done for done, _, _ in seen]
    steps = [message for _, _, message in seen if "step" in message]
    check(f"{label}: progress at every step, always growing", len(steps) >= 2 and values == sorted(set(values)))

    by_file = await client.call_tool(TOOL, arguments(image=IMAGE.as_uri(), mask=MASK.as_uri()))
    check(f"{label}: a file URL gives the same picture", not by_file.is_error and stored(by_file).read_bytes() == png, by_file)
    return asset


async def references(client, tool, label):
    """The second tool."""
    async def call(**more):
        return await client.call_tool(REFERENCE_TOOL, arguments(image=IMAGE.as_uri(), mask=MASK.as_uri(), **more))

    by_data = await call(ipAdapterImages=[data_url(LOOK), data_url(OTHER_LOOK)], ipAdapterScales=[1, 0.5])
    check(f"{label}: two references by data URL", not by_data.is_error and stored(by_data).is_file(), by_data)
    jsonschema.validate(by_data.structured_content, tool.output_schema)
    inference = by_data.structured_content["inference"]
    ids = inference["ipAdapterImageIds"]
    check(f"{label}: the structure repeats them", inference["type"] == "inpaint_ip_adapter"
          and inference["ipAdapterScales"] == [1, 0.5] and len(ids) == 2 and "base64" not in json.dumps(inference))
    mixed = await call(ipAdapterImages=[LOOK.as_uri()], ipAdapterImageIds=ids[1:], ipAdapterScales=[1, 0.5])
    assets = await call(ipAdapterImageIds=ids, ipAdapterScales=[1, 0.5])
    pictures = [stored(result).read_bytes() for result in (by_data, mixed, assets) if not result.is_error]
    check(f"{label}: a file URL and assets give the same picture", len(pictures) == 3 and len(set(pictures)) == 1,
          (mixed, assets))
    one = await call(ipAdapterImages=[LOOK.as_uri()])
    check(f"{label}: other references give another picture", stored(one).read_bytes() != pictures[0])
    for what, fault, more in [
        ("a wrong count of scales", "ipAdapterScales is a list of 3 for 2 reference pictures",
         dict(ipAdapterImageIds=ids, ipAdapterScales=[1, 1, 1])),
        ("no reference", "ipAdapterImages is missing", {}),
        ("an unknown concept", 'concepts[0].modelId is "smoke"',
         dict(ipAdapterImageIds=ids, concepts=[{"modelId": "smoke", "scale": 1}])),
    ]:
        bad = await call(**more)
        check(f"{label}: {what} is one sentence", bad.is_error and texts(bad).startswith(fault)
              and "\n" not in texts(bad), bad)


def models_folder(folder):
    """The tiny models, and the adapters where they are looked for."""
    shutil.copytree(FIXTURES / "models", folder)
    (folder / "ip_adapter").rename(folder / "ip-adapters")
    return folder


async def main(infill):
    published = {name: json.loads((ROOT / f"crates/mcp/src/tools/{name}.tool.json").read_text())["inputSchema"]
                 for name in (TOOL, REFERENCE_TOOL)}
    with tempfile.TemporaryDirectory() as folder:
        store, models = pathlib.Path(folder) / "store", models_folder(pathlib.Path(folder) / "models")
        server = StdioServerParameters(command=infill, args=[
            "serve", "--store", str(store), "--allow-dir", str(FIXTURES), "--models", str(models),
            "--device", "cpu"])
        asset = None
        for mode in ["legacy", "2026-07-28"]:
            async with Client(server, mode=mode) as client:
                listed = (await client.list_tools()).tools
                tools = [tool for tool in listed if tool.name in published]
                check(f"{mode}: four tools, those that paint first", listed[:2] == tools
                      and [tool.name for tool in listed] == [*published, "get-job-id", "get-assets-by-asset-id"], listed)
                check(f"{mode}: those that look change nothing",
                      all(tool.annotations.read_only_hint and tool.title for tool in listed[2:]), listed)
                for tool in tools:
                    # As text: the order of properties counts.
                    check(f"{mode}: the schema of {tool.name} is the reference's",
                          json.dumps(tool.input_schema) == json.dumps(published[tool.name]))
                    hints = tool.annotations
                    check(f"{mode}: its annotations",
                          (hints.read_only_hint, hints.destructive_hint, hints.open_world_hint)
                          == (False, False, False) and bool(tool.title))
                asset = await session(client, tools[0], mode)
                await references(client, tools[1], mode)

        async with Client(server, mode="legacy") as client:
            again = await client.call_tool(TOOL, arguments(image=asset, mask=MASK.as_uri(), numSamples=2))
            check("a result of an earlier session is the next image",
                  not again.is_error and len(blocks(again, "resource_link")) == 2, again)
            dry = await client.call_tool(TOOL, arguments(image=asset, mask=MASK.as_uri(), dryRun="true"))
            told = dry.structured_content
            check("a dry run costs nothing and tells what a run would",
                  told["creativeUnitsCost"] == 0 and told["estimate"]["peakMemoryBytes"] > 0, dry)
            bad = await client.call_tool(TOOL, arguments(
                image="file:///etc/passwd", mask="data:image/png;base64,AAAA", strength=2, width=68, scheduler="Euler",
                steps=3, numSamples="4", modelId="no-such-model"))
            check("bad arguments are all told at once", bad.is_error and all(
                f"{name}" in texts(bad) for name in
                ["image", "mask", "strength is 2", "width is 68", "scheduler", "steps is not", "numSamples", "modelId"]), bad)
            check("nothing of a forbidden file is told", "root:" not in texts(bad))

            started = asyncio.Event()

            async def begun(*_):
                started.set()

            slow = asyncio.create_task(client.call_tool(
                TOOL, arguments(image=asset, mask=MASK.as_uri(), numInferenceSteps=150, numSamples=128, strength=1),
                progress_callback=begun))
            await started.wait()
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            after = await asyncio.wait_for(
                client.call_tool(TOOL, arguments(image=asset, mask=MASK.as_uri())), timeout=60)
            check("a cancelled run makes room for the next", not after.is_error, after)
        await over_http(infill, store)
    print("all checks passed")


async def over_http(infill, store):
    process = await asyncio.create_subprocess_exec(
        infill, "serve", "--http", "127.0.0.1:0", "--store", store, "--allow-dir", str(FIXTURES),
        "--models", str(FIXTURES / "models"), "--device", "cpu", stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "INFILL_LOG": "off"})
    url = (await process.stderr.readline()).decode().split()[2].rstrip(",")
    for mode in ["legacy", "2026-07-28"]:
        async with Client(url, mode=mode) as client:
            tool = next(tool for tool in (await client.list_tools()).tools if tool.name == TOOL)
            await session(client, tool, f"HTTP, {mode}")
            started = asyncio.Event()

            async def begun(*_):
                started.set()

            slow = asyncio.create_task(client.call_tool(
                TOOL, arguments(image=IMAGE.as_uri(), mask=MASK.as_uri(), numInferenceSteps=150, numSamples=128, strength=1),
                progress_callback=begun))
            await started.wait()
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            after = await asyncio.wait_for(
                client.call_tool(TOOL, arguments(image=IMAGE.as_uri(), mask=MASK.as_uri())), timeout=60)
            check(f"HTTP, {mode}: a cancelled run makes room for the next", not after.is_error, after)
    process.terminate()
    check("HTTP: the server ends when asked to", await asyncio.wait_for(process.wait(), timeout=20) == 0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
