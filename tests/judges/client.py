"""The official Python client, told what to do by lines of JSON, as tests/node/mcp-client.mjs is.

The first line says where the server is: { url, token } or { command, args }, and how to talk: { mode, elicitation }.
Then: { list }, { call, arguments, cancelAfter }, { close }. `cancelAfter` milliseconds later the call is cancelled.
"""

import json
import os
import sys
from contextlib import AsyncExitStack

import anyio
import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

NEWEST = "2026-07-28"


def say(**line):
    print(json.dumps(line), flush=True)


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def hear():
    line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return json.loads(line) if line else {"close": True}


async def call(client, told, quiet):
    async def progressed(progress, total, message):
        say(event="progress", progress=progress, total=total, message=message)

    stopped = anyio.move_on_after(told["cancelAfter"] / 1000) if "cancelAfter" in told else anyio.CancelScope()
    with stopped:
        result = await client.call_tool(
            told["call"],
            told["arguments"],
            read_timeout_seconds=60 if quiet else 600,
            progress_callback=None if quiet else progressed,
        )
        say(result=plain(result))
    if stopped.cancelled_caught:
        say(failed="cancelled by the test")


async def talk(settings, tasks):
    client = None
    changed = anyio.Event()

    async def elicited(_context, params):
        say(event="elicitation", **plain(params))
        return types.ElicitResult(action=settings["elicitation"])

    async def received(message):
        nonlocal changed
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async def tell_changes():
        nonlocal changed
        while True:
            await changed.wait()
            changed = anyio.Event()
            listed = await client.list_tools(cache_mode="bypass")
            say(event="tools-changed", count=len(listed.tools))

    async def listen(task_status=anyio.TASK_STATUS_IGNORED):
        async with client.listen(tools_list_changed=True) as changes:
            task_status.started()
            async for _ in changes:
                changed.set()

    mode = settings.get("mode", "auto")
    async with AsyncExitStack() as stack:
        if "url" in settings:
            headers = {"Authorization": f"Bearer {settings['token']}"} if settings.get("token") else {}
            http = await stack.enter_async_context(create_mcp_http_client(headers=headers))
            server = streamable_http_client(settings["url"], http_client=http)
        else:
            server = StdioServerParameters(command=settings["command"], args=settings["args"], env=dict(os.environ))
        client = Client(
            server,
            mode=mode["pin"] if isinstance(mode, dict) else mode,
            client_info=types.Implementation(name="tests", version="1"),
            elicitation_callback=elicited if settings.get("elicitation") else None,
            message_handler=received,
        )
        try:
            await stack.enter_async_context(client)
        except MCPError as error:
            say(event="refused", message=error.error.message, code=error.error.code)
            return
        server = client.server_info
        say(event="connected", version=client.protocol_version, server=server and plain(server))
        tasks.start_soon(tell_changes)
        if client.protocol_version == NEWEST:
            await tasks.start(listen)
        while not (told := await hear()).get("close"):
            try:
                if told.get("list"):
                    say(tools=[plain(tool) for tool in (await client.list_tools(cache_mode="bypass")).tools])
                else:
                    await call(client, told, told.get("quiet", False))
            except MCPError as error:
                say(failed=error.error.message, code=error.error.code, data=error.error.data)
            except Exception as error:  # what the client itself refuses is told, too
                say(failed=f"{type(error).__name__}: {error}")
        tasks.cancel_scope.cancel()


async def main():
    async with anyio.create_task_group() as tasks:
        await talk(await hear(), tasks)
        tasks.cancel_scope.cancel()


anyio.run(main)
