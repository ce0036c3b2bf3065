"""Be `m2d` where no script of that name is installed."""

from malleable.wiring.main import run

if __name__ == "__main__":
    run()
