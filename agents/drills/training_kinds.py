"""Kinds of faults that are learned from: the agents' own causes, and others that sites have."""

from __future__ import annotations

from watchkeeper.agents import causes
from watchkeeper.agents.drills.kinds import FaultKind, Words

TRAINING_WORDS = Words(
    services=(
        "billing", "search", "mail-in", "geo", "wiki", "auth", "media", "chat", "forms", "stock-api", "news",
        "crm", "payroll", "print", "video-edge", "push", "ldap-proxy", "tiles", "survey", "archive-web",
    ),
    hosts=(
        "srv11", "web-a4", "db-north", "tuba", "viola", "cello", "k-203", "lab9", "mars", "pluto", "box-77",
        "fra-02", "oslo1", "prod-31", "tango",
    ),
    mounts=("/var", "/srv/files", "/", "/home", "/mnt/pool2", "/var/lib/{service}", "/opt/cache", "/u01"),
    configs=(
        "/etc/{service}/main.yaml", "/etc/{service}.conf", "/opt/{service}/app.ini", "/etc/default/{service}",
        "/srv/{service}/settings.toml",
    ),
    alerts=(
        "GET http://127.0.0.1:{port}/health must answer 200",
        "GET http://{host}:{port}/ready must answer 200",
        "port {port} of {host} must accept connections",
        "GET https://{host}/{service}/ping must answer 204",
    ),
    failing=(
        "GET http://127.0.0.1:{port}/health failed: connection refused (after 0.0{few} seconds).",
        "GET http://{host}:{port}/ready answered 503, expected 200.",
        "GET http://127.0.0.1:{port}/health answered 500, expected 200.",
        "Port {port} of {host} does not accept connections.",
        "GET http://{host}:{port}/ready failed: no answer within 3 seconds.",
    ),
    passing=(
        "GET http://127.0.0.1:{port}/health answered 200 in 0.0{few} seconds, as expected.",
        "Port {port} of {host} accepts connections.",
    ),
    stopped=(
        "service {service} is not running: it exited {just} ago with exit status {few}",
        "service {service} is not running: it ends right after each start, with exit status 1",
        "service {service} is not running: its supervisor gave up after {few} starts",
    ),
    stopped_cause=causes.PROCESS_STOPPED,
    noise=(
        "{few} log lines of {other} in the last 10 minutes say that there was some other error.",
        "service {other} was started {long} ago",
        "The file /var/log/{other}.log takes {many} MiB.",
        "Process {pid} uses {middle} % of a processor core.",
        "A line of a log of {other} could not be read.",
        "{few} people are logged in on {host}.",
    ),
)  # fmt: skip

TRAINING_KINDS: tuple[FaultKind, ...] = (
    FaultKind(
        id="process-stopped",
        cause=causes.PROCESS_STOPPED,
        strong=(
            "service {service} is not running: it exited {just} ago, killed by signal 9",
            "service {service} is not running: it was killed by signal 15 {just} ago",
            "service {service} is not running: somebody stopped it {just} ago",
            "service {service} is not running: its process ended {just} ago and was not started again",
        ),
        weak=(
            "service {other} is not running: it was stopped on purpose {long} ago",
            "service {other} is not running: it is a job that ended with exit status 0 {long} ago",
        ),
        weak_subject="{other}",
        # It is an option wherever a service went down in consequence; it must be right as often as wrong.
        weight=3,
    ),
    FaultKind(
        id="process-hung",
        cause=causes.PROCESS_HUNG,
        strong=(
            "service {service} is running, but answers nothing since {just}",
            "Process {pid} of {service} has used no processor time for {few} minutes while requests wait",
            "service {service} is running; {many} connections wait to be accepted",
            "All threads of {service} have waited for one lock since {just}",
        ),
        weak=(
            "",
            "service {service} was started {long} ago",
            "service {service} was started {just} ago, its process before ended with exit status 0",
        ),
    ),
    FaultKind(
        id="disk-full",
        cause=causes.DISK_FULL,
        subject="{mount}",
        strong=(
            "The file system {mount} is full: 100 % is used, 0 bytes are free.",
            "No space is left on {mount}; writes of {service} fail",
            "The file system {mount} has no inodes left, so no file can be made.",
            "{many} log lines of {service} say that there is no space left on {mount}",
        ),
        weak=(
            "The file system {mount} is {middle} % full, as it was {long} ago",
            "The file system {mount} is filling up: 86 % is used, {many} GiB are free.",
            "A file of {few} GiB lies on {mount}, {middle} % of which is used",
        ),
        stops=True,
    ),
    FaultKind(
        id="config-broken",
        cause=causes.CONFIG_BROKEN,
        subject="{config}",
        strong=(
            "configuration file {config} of service {service} changed {just} ago: 1 line differs",
            "configuration file {config} of service {service} cannot be parsed: line {few} is no setting",
            "{few} log lines of {service} say that a setting in {config} has no valid value",
            "{config} was replaced {just} ago, right before {service} began to fail",
        ),
        weak=(
            "configuration file {config} of service {service} changed {long} ago: {few} lines differ",
            "Only a comment of {config} changed {long} ago",
        ),
        stops=True,
    ),
    FaultKind(
        id="memory-exhausted",
        cause=causes.MEMORY_EXHAUSTED,
        subject="{host}",
        strong=(
            "Only 1 % of the memory of {host} is available ({many} MiB), and 100 % of the swap is used.",
            "The kernel of {host} ended {few} processes for want of memory {just} ago",
            "{service} cannot allocate memory on {host}; process {pid} holds {high} % of it",
            "{few} log lines of {service} say that memory ran out",
        ),
        weak=(
            "{middle} % of the memory of {host} is in use, most of it as a cache",
            "Memory was short on {host} {long} ago, and is not since",
        ),
        stops=True,
    ),
    FaultKind(
        id="cpu-saturated",
        cause=causes.CPU_SATURATED,
        subject="{host}",
        strong=(
            "The processors of {host} are {high} % busy, and {few}.4 processes per core want to run.",
            "Requests of {service} wait for a free processor of {host}, {many} at a time",
            "Process {pid} takes all cores of {host} since {just}",
            "The load of {host} rose to {many} within {few} minutes",
        ),
        weak=(
            "The processors of {host} are {middle} % busy",
            "A process used much of the processors of {host} {long} ago",
        ),
    ),
    FaultKind(
        id="dependency-down",
        cause=causes.DEPENDENCY_DOWN,
        strong=(
            "{many} log lines of {service} say that a connection to another service failed",
            "{service} gets connection refused from the database that it needs",
            "The system behind {service} does not answer since {just}; {service} itself is well",
            "Every request of {service} waits for a remote system and times out",
        ),
        weak=(
            "1 log line of {service} says that a connection failed {long} ago; the next try succeeded",
            "{service} lost a connection {long} ago and made a new one",
            "1 log line of {service} in {few} minutes says that a connection to another service failed",
        ),
    ),
    FaultKind(
        id="certificate-expired",
        cause=causes.CERTIFICATE_EXPIRED,
        strong=(
            "The TLS certificate of {service} expired {just} ago.",
            "Clients refuse {service}: its certificate is no longer valid",
            "{many} handshakes with {service} failed because the certificate ran out",
        ),
        weak=(
            "The TLS certificate of {service} expires in {few} weeks.",
            "The certificate of {service} was renewed {long} ago",
        ),
    ),
    FaultKind(
        id="port-taken",
        cause=causes.PORT_TAKEN,
        strong=(
            "{few} log lines of {service} say that its port is in use by another process",
            "Process {pid}, which is not {service}, listens on port {port}",
            "{service} cannot bind port {port}: the address is in use",
        ),
        weak=(
            "1 log line of {service} says that its port was in use {long} ago; the second start succeeded",
            "{other} listens beside {service}, on a port of its own",
        ),
        stops=True,
    ),
    FaultKind(
        id="nothing-wrong",
        cause=causes.NOTHING_WRONG,
        strong=("",),
        weak=(),
        passes=True,
    ),
    FaultKind(
        id="names-unresolved",
        texts=("the name server does not answer {subject}", "name resolution fails for {subject}"),
        strong=(
            "{service} cannot look up any name: temporary failure in name resolution",
            "The name server of {host} has not answered since {just}",
            "Addresses work from {host}, names do not",
            "{many} lookups of {service} timed out in {few} minutes",
        ),
        weak=("One lookup of {service} took {few} seconds {long} ago", "The name server answers in {few} ms"),
    ),
    FaultKind(
        id="clock-off",
        texts=("the clock of {subject} is wrong", "time on {subject} is not what it is elsewhere"),
        subject="{host}",
        strong=(
            "The clock of {host} is {many} minutes ahead of its peers",
            "Tokens are refused on {host} as not valid yet; the time service stopped {just} ago",
            "{host} says it is yesterday",
        ),
        weak=(
            "The clock of {host} is off by {few} ms",
            "The clock of {host} was set {long} ago, by {few} ms",
        ),
    ),
    FaultKind(
        id="permission-denied",
        texts=("access rights keep {subject} from its files", "{subject} may not read what it needs"),
        strong=(
            "{many} log lines of {service} say that permission was denied",
            "The files of {service} belong to root since {just}; it runs as another user",
            "{service} is refused access to its own data folder",
        ),
        weak=(
            "1 request to {service} was forbidden {long} ago, as it should be",
            "Rights of a file that {other} alone reads were changed {long} ago",
        ),
        stops=True,
    ),
    FaultKind(
        id="descriptors-used-up",
        texts=("too many files are open in {subject}", "{subject} ran into its limit of open files"),
        strong=(
            "{service} has 1024 of 1024 file descriptors open",
            "accept() of {service} fails: too many open files",
            "Open sockets of {service} grew to the limit of the process",
        ),
        weak=(
            "{service} has {many} of 65536 file descriptors open",
            "The number of open files of {service} peaked {long} ago",
        ),
    ),
    FaultKind(
        id="locks-wait",
        texts=("locks block the database of {subject}", "a transaction holds up all others of {subject}"),
        strong=(
            "{many} sessions of {service} wait for a lock that one session holds since {just}",
            "A transaction of {service} is open and idle since {just}; updates queue behind it",
            "Deadlocks abort every second update of {service}",
        ),
        weak=("One statement of {service} waited {few} ms for a lock", "A deadlock was resolved {long} ago"),
    ),
    FaultKind(
        id="pool-empty",
        texts=(
            "no database connection is left for {subject}",
            "{subject} has used up its pool of connections",
        ),
        strong=(
            "{service} waits for a free connection: {many} of {many} are taken",
            "The database refuses {service}: too many clients already",
            "Requests of {service} give up after 30 seconds in the queue of the connection pool",
        ),
        weak=(
            "{few} of {many} database connections of {service} are taken",
            "The connection pool of {service} was made larger {long} ago",
        ),
    ),
    FaultKind(
        id="traffic-filtered",
        texts=("packets to {subject} are filtered", "a firewall rule blocks {subject}"),
        strong=(
            "The packet filter of {host} drops all to port {port} since its rules were loaded {just} ago",
            "Connections to {service} time out from outside and succeed on {host} itself",
            "The counter of dropped packets for port {port} grows by {many} a second",
        ),
        weak=(
            "The rules of the packet filter on {host} were last changed {long} ago",
            "The packet filter of {host} dropped {few} packets of a scanner",
        ),
    ),
    FaultKind(
        id="credentials-refused",
        texts=("the password of {subject} is no longer accepted", "{subject} logs in with an old secret"),
        strong=(
            "The database refuses the login of {service} since its secret was changed {just} ago",
            "{many} log lines of {service} say that authentication failed",
            "{service} still presents a key that was withdrawn {just} ago",
        ),
        weak=(
            "One person mistyped a password of {service} {long} ago",
            "The secret of {service} was changed {long} ago, and logins work",
        ),
    ),
    FaultKind(
        id="release-faulty",
        texts=("the new release of {subject} has a bug", "a faulty version of {subject} was rolled out"),
        strong=(
            "{service} was updated {just} ago, and each request since raises the same error in its code",
            "Errors of {service} began with the version that came {just} ago; older copies are well",
            "A null value in new code of {service} ends every request",
        ),
        weak=(
            "{service} was last updated {long} ago",
            "The release of {other} that came {long} ago is in use without errors",
        ),
        stops=True,
    ),
    FaultKind(
        id="queue-grown",
        texts=("work piles up in the queue of {subject}", "messages for {subject} are not taken in time"),
        strong=(
            "{many}000 messages wait for {service}, and more come than go",
            "The oldest message for {service} is {few} hours old",
            "The consumer of {service} has taken nothing since {just}; its queue is at its limit",
        ),
        weak=(
            "{few} messages wait for {service}",
            "The queue of {service} was long {long} ago, and is empty",
        ),
    ),
    FaultKind(
        id="disk-slow",
        texts=("the disk under {subject} is slow", "reads and writes of {subject} take too long"),
        subject="{mount}",
        strong=(
            "A write to {mount} takes {many}00 ms, and the device is {high} % busy",
            "{service} waits for {mount} in {high} % of its time",
            "The device of {mount} resets itself again and again since {just}",
        ),
        weak=("A write to {mount} takes {few} ms", "Reads from {mount} were slow during a backup {long} ago"),
    ),
    FaultKind(
        id="packets-lost",
        texts=("the network card of {subject} loses packets", "the link of {subject} is faulty"),
        subject="{host}",
        strong=(
            "{middle} % of all packets to {host} are lost",
            "The link of {host} went down {few} times in {few} minutes",
            "Checksum errors of the network card of {host} grow by {many} a second since {just}",
        ),
        weak=(
            "The network card of {host} has counted {few} errors since its start {long} ago",
            "The link of {host} is up since {long}",
        ),
    ),
    FaultKind(
        id="backup-disturbs",
        texts=("a backup takes what {subject} needs", "{subject} is slowed down by a running backup"),
        strong=(
            "A full backup of {host} began {just} ago and reads as fast as the disks can",
            "The tables of {service} are locked by a dump since {just}",
            "{service} became slow in the minute in which the backup began",
        ),
        weak=(
            "The last backup of {host} ended {long} ago",
            "The next backup of {host} is due in {few} hours",
        ),
    ),
    FaultKind(
        id="quota-reached",
        texts=("a provider limits the requests of {subject}", "{subject} has spent its quota"),
        strong=(
            "The provider answers {service} with 429 since {just}",
            "{service} used 100 % of its quota for today",
            "{many} calls of {service} were turned away for exceeding a rate",
        ),
        weak=("{service} used {middle} % of its quota", "A rate limit met {service} once, {long} ago"),
    ),
)
"""Learned from."""
