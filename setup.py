"""The build step that setup.cfg cannot express: a wheel carries `configs/` of the checkout as `hyperrecon_jax/configs/`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies the configs after the modules. An editable installation reads those of the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for path in Path("configs").rglob("*.py"):
                target = Path(self.build_lib, "hyperrecon_jax", path)
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": BuildWithConfigs})
