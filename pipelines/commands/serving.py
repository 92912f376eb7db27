"""Commands that serve: `up` holds API, worker, flows, MLflow and Prefect together, `demo` shows the whole loop."""

from typing import Annotated

import typer

from infra.logs import configure_logs
from infra.services import announced_prefect
from infra.settings import Settings, load_settings
from pipelines.commands.workspace import open_workspace, out
from pipelines.supervisor import (
    Service,
    Supervisor,
    api_service,
    flows_service,
    mlflow_service,
    prefect_service,
    stopping_on_signals,
    worker_service,
)

LOOPBACKS = ("127.0.0.1", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(up)
    app.command()(demo)


def up() -> None:
    """Serve the API, the MLflow UI and the Prefect UI over the data folder, run the flows on their schedules and, with
    Kafka, a worker, until Ctrl-C. One that dies is started again, and its last words are told.

    Example: rewardloop up
    """
    settings = open_workspace().settings
    console = out()
    services = services_of(settings)
    console.print(f"Data folder {settings.home.resolve()}", soft_wrap=True, highlight=False)
    if settings.ui_host not in LOOPBACKS:
        console.print(
            f"MLflow and Prefect let in whoever reaches {settings.ui_host}: have a proxy ask who it is.",
            style="bold red",
        )
    with stopping_on_signals() as stopped, Supervisor(services) as supervisor:
        for service in services:
            state = f"waits for {service.after}" if service.after else "starting"
            console.print(f"  {service.name:<8} {state:<9} {service.url}", soft_wrap=True, highlight=False)
        supervisor.wait_until_ready(
            services,
            stopped,
            lambda service, seconds: console.print(
                f"  {service.name:<8} ready     {service.url}  ({seconds:.0f} s)", soft_wrap=True, highlight=False
            ),
        )
        if not stopped.is_set():
            console.print("All ready. Ctrl-C stops them.")
        prefect = next(service for service in services if service.name == "Prefect")
        with announced_prefect(settings, f"{prefect.origin}/api"):
            supervisor.watch(
                stopped,
                lambda service, said: console.print(
                    f"  {service.name:<8} {said}", soft_wrap=True, markup=False, highlight=False
                ),
            )
        console.print("Stopping …")
    console.print("Stopped.")


def services_of(settings: Settings) -> list[Service]:
    """What `up` serves; an MLflow server of the installation's own replaces ours."""
    own = settings.mlflow_tracking_uri.startswith(("http://", "https://"))
    prefect = prefect_service(settings)
    return [
        api_service(settings),
        *([worker_service(settings)] if settings.kafka else []),
        *([] if own else [mlflow_service(settings)]),
        prefect,
        flows_service(settings, prefect),
    ]


def demo(
    generate: Annotated[
        bool, typer.Option("--generate", help="The outer loop: copy that is written anew, round by round.")
    ] = False,
    short: Annotated[bool, typer.Option("--short", hidden=True, help="Few customers: shows the path only.")] = False,
) -> None:
    """Run the whole loop on simulated customers: choose, learn, retrain, promote, measure. About three minutes.

    Example: rewardloop demo

    Example: rewardloop demo --generate
    """
    if generate:
        _show(short)
        return
    from pipelines.demo import FULL, SHORT, demo_settings, print_report, run_demo  # a second that other commands save

    configure_logs("error")
    console = out()
    report = run_demo(demo_settings(), SHORT if short else FULL, console)
    print_report(report, load_settings(), console)


def _show(short: bool) -> None:
    """The outer loop: generate, send, learn, generate better."""
    from pipelines.demo import demo_settings
    from pipelines.generation.show import FULL, SHORT, print_rounds, run_show

    configure_logs("error")
    console = out()
    rounds = run_show(demo_settings(), SHORT if short else FULL, console)
    print_rounds(rounds, load_settings(), console)
