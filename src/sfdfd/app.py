"""The app: ``python -m sfdfd.app`` opens a page in the browser that predicts and refocuses photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs.command import as_plain_dict, command

if TYPE_CHECKING:
    import socket

    from omegaconf import DictConfig


def app(config: DictConfig) -> None:
    """Serve the page until Ctrl-C; then remove its folder."""
    import contextlib
    import importlib.util
    import signal
    import tempfile
    import threading
    import webbrowser
    from pathlib import Path

    from sfdfd.errors import InputError, checked_choice, checked_int, checked_number
    from sfdfd.web.origins import AllowedHosts, is_loopback
    from sfdfd.web.uploads import Limits

    settings = as_plain_dict(config)
    host, port = str(settings["host"]), checked_int(settings["port"], "port", 0, 65535)
    opens = checked_choice(settings["open"], "open", (True, False))
    hosts = AllowedHosts.serving(host, settings["allowed_hosts"])
    limits, longest_s = Limits(**settings["uploads"]), checked_number(settings["longest_s"], "longest_s")
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs gradio: pip install 'sfdfd[app]'")
    folder = None if settings["folder"] is None else Path(str(settings["folder"]))
    if folder is not None and not folder.is_dir():
        raise InputError(f"folder={folder}: expected a folder that exists")
    listener = _listen(host, port)
    port = listener.getsockname()[1]

    import uvicorn

    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with contextlib.ExitStack() as on_exit:
        root = Path(
            on_exit.enter_context(
                tempfile.TemporaryDirectory(prefix="sfdfd-app-", dir=folder, ignore_cleanup_errors=True)
            )
        )
        from sfdfd.web.page import Sessions, application  # Gradio reads the environment when it is imported

        sessions = Sessions(root.resolve(), limits, longest_s)
        on_exit.callback(sessions.close)
        server = uvicorn.Server(
            uvicorn.Config(application(sessions, host, port, hosts), log_level="warning", timeout_graceful_shutdown=3)
        )
        if not is_loopback(host):
            print("sfdfd: everybody who can reach this computer can use this page; there is no password")
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if opens:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the folder is removed then, too
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        InputError: the address or the port cannot be used.
    """
    import socket

    from sfdfd.errors import InputError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"host={host} port={port}: the server cannot listen there ({error}); give another port=N"
        ) from None


main = command("app")(app)

if __name__ == "__main__":
    main()
