"""A TPM 2.0 for each node (swtpm): its state, with the endorsement key, is kept for the life of the room."""

from dataclasses import dataclass
from pathlib import Path

from malleable.sim.rack import commands, namespace, processes
from malleable.sim.rack.layout import NodeFiles

START_DEADLINE_S = 20.0
EK_CERTIFICATE = "ek-rsa2048.crt"  #: as swtpm_setup names it; DER
_STATE = "tpm2-00.permall"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """The room's TPM maker: it signs the endorsement keys, as a chip vendor would.

    A room has its own because swtpm's default one is the host's, under /var/lib/swtpm-localca.
    """

    directory: Path

    @property
    def setup_config(self) -> Path:
        return self.directory / "setup.conf"

    def ensure(self) -> None:
        """Write the configuration; swtpm_setup makes the keys at first use."""
        self.directory.mkdir(parents=True, exist_ok=True)
        authority, options = self.directory / "localca.conf", self.directory / "localca.options"
        authority.write_text(
            f"statedir = {self.directory}\n"
            f"signingkey = {self.directory}/signkey.pem\n"
            f"issuercert = {self.directory}/issuercert.pem\n"
            f"certserial = {self.directory}/certserial\n"
        )
        options.write_text("--platform-manufacturer Malleable\n--platform-version 1\n--platform-model VirtualRoom\n")
        self.setup_config.write_text(
            "create_certs_tool = /usr/bin/swtpm_localca\n"
            f"create_certs_tool_config = {authority}\n"
            f"create_certs_tool_options = {options}\n"
            "active_pcr_banks = sha256\n"
        )


def manufacture(files: NodeFiles, authority: CertificateAuthority) -> None:
    """Make the node's TPM with its endorsement keys and certificates; nothing to do if it has one (0.5 s)."""
    if (files.tpm_dir / _STATE).exists():
        return
    files.tpm_dir.mkdir(parents=True, exist_ok=True)
    commands.run(
        ["swtpm_setup", "--tpm2", "--tpmstate", files.tpm_dir, "--create-ek-cert", "--not-overwrite",
         "--config", authority.setup_config, "--write-ek-cert-files", files.tpm_dir, "--logfile", files.tpm_log],
    )  # fmt: skip


def start(files: NodeFiles, netns: str) -> None:
    """Start the TPM for one power-on; it ends by itself when QEMU lets go of it."""
    stop(files)
    files.tpm_socket.unlink(missing_ok=True)
    argv = namespace.inside(
        netns, "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={files.tpm_dir}",
        "--ctrl", f"type=unixio,path={files.tpm_socket},mode=0600",
        "--flags", "startup-clear", "--terminate", "--log", f"file={files.tpm_log},level=1",
    )  # fmt: skip
    processes.record(files.tpm_pid, processes.spawn(argv, log=files.tpm_log, env=commands.environment()))
    processes.wait_until(
        files.tpm_socket.exists,
        deadline_s=START_DEADLINE_S,
        what=f"The TPM of {files.name} did not start",
        fix=f"Read {files.tpm_log}.",
    )


def stop(files: NodeFiles) -> None:
    """End the TPM's process if one is left over: two on one state directory would spoil it."""
    process = processes.recorded(files.tpm_pid)
    if process is not None:
        processes.stop(process, term_s=2)
    files.tpm_pid.unlink(missing_ok=True)
