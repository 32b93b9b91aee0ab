"""The published Conduit client (netconduit 4.0.0, unchanged), as its guide says to use it.

Usage:
    conduit_client.py version
    conduit_client.py HOST PORT PASSWORD_FILE NAME COMMAND [ARGUMENT...]

    upload FILE...        stores files
    download DIR NAME...  fetches files into a folder
    list                  lists files
    methods               describes what can be called
    ping SECONDS          stays connected, and pings every second
    listen DIR            receives files that are pushed, into a folder, until it is killed
    push CLIENT FILE      has the server push one of its files

Each result is a line of JSON on standard output. Ends with 3 if the server does not let it in.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

NOT_LET_IN = 3
#: How long anything may take, in seconds, on a machine that is busy with other tests.
PATIENCE = 240.0


def say(**facts):
    print(json.dumps(facts), flush=True)


async def upload(client, handler, paths):
    for path in paths:
        seen = []
        result = await handler.send_to_server(client, path, on_progress=lambda p: seen.append(p.percent))
        say(result=result, progress=seen[-1:])


async def download(client, handler, folder, names):
    for name in names:
        say(result=await handler.receive_from_server(client, name, local_dir=folder))


async def ping(client, seconds):
    await asyncio.sleep(seconds)
    say(connected=client.is_connected, pongs=client._connection._heartbeat.stats.pongs_received)


async def listen(client):
    # The server may push as soon as it has heard from this client.
    say(listening=(await client.rpc.call("file_list"))["success"])
    while True:
        await asyncio.sleep(PATIENCE)


async def run(host, port, password, name, command, arguments):
    from conduit import Client, ClientDescriptor, FileTransferHandler, data

    client = Client(
        ClientDescriptor(
            server_host=host,
            server_port=int(port),
            password=Path(password).read_text().rstrip("\n"),
            name=name,
            reconnect_enabled=False,
            connect_timeout=int(PATIENCE),
            rpc_timeout=PATIENCE,
            heartbeat_interval=1,
            heartbeat_timeout=int(PATIENCE),
        )
    )
    handler = FileTransferHandler(storage_dir=arguments[0] if command == "listen" else ".")
    handler.register_client_handlers(client)

    @handler.on_file_received
    async def on_file(path, metadata):
        say(path=path, filename=metadata["filename"], size=metadata["size"])

    if not await client.connect():
        return NOT_LET_IN
    if command == "upload":
        await upload(client, handler, arguments)
    elif command == "download":
        await download(client, handler, arguments[0], arguments[1:])
    elif command == "list":
        say(result=await client.rpc.call("file_list"))
    elif command == "methods":
        say(result=await client.rpc.discover(), unknown=await client.rpc.call("nothing"))
    elif command == "ping":
        await ping(client, float(arguments[0]))
    elif command == "listen":
        await listen(client)
    elif command == "push":
        result = await client.rpc.call("file_push", args=data(client=arguments[0], filename=arguments[1]))
        say(result=result)
    await client.disconnect()
    return 0


def main():
    if sys.argv[1:] == ["version"]:
        from importlib.metadata import version

        print(version("netconduit"))
        return 0
    host, port, password, name, command, *arguments = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    return asyncio.run(run(host, port, password, name, command, arguments))


if __name__ == "__main__":
    sys.exit(main())
