#!/usr/bin/python
"""An Ansible module: say lines to a switch's command line, as they are and in order, and return what it answered.

``cli_config`` compares lines with the running configuration first, and leaves out what is there already: of a port that
has a block, the line that opens this block. SONiC's and OS10's connections do not know it at all.
"""

from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.connection import Connection, ConnectionError


def main() -> None:
    """Run the module."""
    lines = {"type": "list", "elements": "str"}
    module = AnsibleModule({"lines": {**lines, "required": True}, "give_up": {**lines, "default": []}})
    connection = Connection(module._socket_path)
    answers = []
    try:
        for line in module.params["lines"]:
            answers.append(connection.get(command=line))
    except ConnectionError as e:
        for leaving in module.params["give_up"]:
            with suppress(ConnectionError):
                connection.get(command=leaving)
        module.fail_json(msg=f"{line}: {e}")
    module.exit_json(changed=True, stdout="\n".join(answers))


if __name__ == "__main__":
    main()
