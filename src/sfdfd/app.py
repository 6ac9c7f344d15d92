"""The app: ``python -m sfdfd.app`` opens a page on which all of it is done with the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs.command import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def app(config: DictConfig) -> None:
    """Serve the page until Ctrl-C; its folder is removed then."""
    import contextlib
    import importlib.util
    import signal
    import tempfile
    import threading
    import webbrowser
    from pathlib import Path

    from sfdfd.errors import InputError, checked_choice, checked_number, checked_whole
    from sfdfd.web.origins import AllowedHosts, is_loopback
    from sfdfd.web.uploads import Limits

    settings = plain(config)
    host, port = str(settings["host"]), checked_whole(settings["port"], "port", 0, 65535)
    opens = checked_choice(settings["open"], "open", (True, False))
    hosts = AllowedHosts.serving(host, settings["allowed_hosts"])
    limits, longest_s = Limits(**settings["uploads"]), checked_number(settings["longest_s"], "longest_s")
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs gradio: pip install 'sfdfd[app]'")
    folder = None if settings["folder"] is None else Path(str(settings["folder"]))
    if folder is not None and not folder.is_dir():
        raise InputError(f"folder={folder}: expected a folder that exists")
    listening = _listening(host, port)
    port = listening.getsockname()[1]

    import uvicorn

    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with contextlib.ExitStack() as stack:
        root = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="sfdfd-app-", dir=folder, ignore_cleanup_errors=True)
            )
        )
        from sfdfd.web.page import Desk, application  # Gradio reads the environment when it is imported

        desk = Desk(root.resolve(), limits, longest_s)
        stack.callback(desk.close)
        server = uvicorn.Server(
            uvicorn.Config(application(desk, host, port, hosts), log_level="warning", timeout_graceful_shutdown=3)
        )
        if not is_loopback(host):
            print("sfdfd: this page is open to everybody who can reach this computer; there is no password")
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if opens:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by whomever, its folder goes
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _listening(host: str, port: int):
    """A socket that listens there.

    Raises:
        InputError: it cannot.
    """
    import socket

    from sfdfd.errors import InputError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(f"host={host} port={port}: nothing can listen there ({error}); give another port=N") from None


main = command("app")(app)

if __name__ == "__main__":
    main()
