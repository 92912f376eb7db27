"""Schema changes, applied by Alembic. ``migrate(engine)`` brings a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine


def configuration() -> Config:
    """Alembic's configuration, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrade to ``revision``. Safe to call at every start: at the newest schema it does nothing."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Go back to ``revision`` (``base``: an empty database). Data of dropped tables is lost."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        config = configuration()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def heads() -> list[str]:
    """The newest revisions; more than one is a mistake."""
    return list(ScriptDirectory.from_config(configuration()).get_heads())
