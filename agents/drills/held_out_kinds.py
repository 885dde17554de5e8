"""Kinds of faults that only judge: nothing of them is learned, neither a cause nor a wording."""

from __future__ import annotations

from watchkeeper.agents.causes import Cause
from watchkeeper.agents.drills.kinds import FaultKind, Words

HELD_OUT_WORDS = Words(
    services=(
        "reports", "gateway", "ledgerd", "thumbnailer", "crawler", "voip", "helpdesk", "metrics-in", "signer",
        "intranet", "backend-2", "shop-search", "pim", "erp-link", "label-server", "cron-hub",
    ),
    hosts=(
        "n42", "athens", "b17-r3", "compute-08", "saturn", "violet", "zrh-5", "gw-east", "titan", "ops-3",
        "hera", "m610-2",
    ),
    mounts=("/data1", "/export", "/var/spool", "/media/raid", "/scratch", "/usr/share/{service}"),
    configs=("/usr/local/etc/{service}.xml", "/var/{service}/{service}.env", "/conf/{service}.json"),
    alerts=(
        "HEAD http://{host}:{port}/status has to return 200",
        "{service} on {host} has to greet on port {port}",
        "the probe of {service} has to succeed",
    ),
    failing=(
        "The probe of {service} on {host} got no reply.",
        "HEAD http://{host}:{port}/status returned 502 instead of 200.",
        "Port {port} closes before {service} says anything.",
        "The last {few} probes of {service} were too slow to count.",
    ),
    passing=("The probe of {service} on {host} succeeds.",),
    stopped=(
        "{service} is down; its supervisor saw it leave with code {few}",
        "{service} has gone {few} times since {just}",
    ),
    stopped_cause=Cause(
        id="ended-by-itself", text="{subject} ended by itself", supported_by=("ended-by-itself",)
    ),
    noise=(
        "{other} wrote {few} warnings that belong to nothing known",
        "{other} came up {long} earlier",
        "Somebody opened a shell on {host}",
        "Program {pid} keeps one core at {middle} %",
        "{other} keeps {many} MB of old traces",
    ),
)  # fmt: skip

HELD_OUT_KINDS: tuple[FaultKind, ...] = (
    FaultKind(
        id="mounted-read-only",
        texts=("nothing can be written because {subject} turned read-only", "{subject} takes no more writes"),
        subject="{mount}",
        strong=(
            "{mount} was remounted read-only {just} ago after a journal error",
            "Each attempt of {service} to save something on {mount} ends with EROFS",
            "The superblock of {mount} is flagged as damaged, so it is protected from writes",
        ),
        weak=(
            "{mount} was checked without a complaint {long} earlier",
            "{mount} is exported read-only to guests, as intended",
        ),
        stops=True,
    ),
    FaultKind(
        id="replica-behind",
        texts=("the standby of {subject} lags", "copies of {subject} are stale"),
        strong=(
            "The standby of {service} replays changes that are {few} hours old, and falls further back",
            "{service} reads from a copy that misses {many} million rows",
            "Replication of {service} broke off {just} ago",
        ),
        weak=(
            "The standby of {service} is {few} ms behind",
            "Replication of {service} paused for an upgrade {long} earlier",
        ),
    ),
    FaultKind(
        id="balancer-misroutes",
        texts=("the balancer sends {subject} requests to dead members", "traffic of {subject} is misrouted"),
        strong=(
            "{high} % of the traffic of {service} goes to a member that was retired {just} ago",
            "Not one member in the balancer's pool of {service} counts as alive",
            "Asked directly, each copy of {service} responds; through the balancer none does",
        ),
        weak=(
            "One of {many} members of {service} is drained for maintenance",
            "The balancer's table for {service} was edited {long} earlier",
        ),
    ),
    FaultKind(
        id="image-missing",
        texts=("the image of {subject} cannot be pulled", "{subject} has no container image to start from"),
        strong=(
            "ImagePullBackOff for {service}: manifest unknown",
            "The registry has deleted the tag that {service} asks for",
            "The node cannot fetch layers of {service}: the registry says 401",
        ),
        weak=(
            "An image of {other} is {long} old",
            "Pulling the image of {service} took {few} seconds at its last start",
        ),
        stops=True,
    ),
    FaultKind(
        id="schema-behind",
        texts=("the tables of {subject} lack a column", "a migration of {subject} was left out"),
        strong=(
            "{service} asks for a column that does not exist since {just}",
            "The schema of {service} is at revision {few}, its program expects a later one",
            "A migration of {service} was rolled back half-way {just} ago",
        ),
        weak=(
            "All migrations of {service} were applied {long} earlier",
            "An index of {service} is no longer used",
        ),
        stops=True,
    ),
    FaultKind(
        id="directory-down",
        texts=("nobody can sign in to {subject}", "the user directory refuses {subject}"),
        strong=(
            "The LDAP bind of {service} has been rejected since {just}",
            "Every session of {service} ends at the login page; the directory is unreachable",
            "Kerberos tickets for {service} cannot be issued",
        ),
        weak=(
            "The directory was slow for {few} seconds {long} earlier",
            "An account of {other} was locked by its owner",
        ),
    ),
    FaultKind(
        id="array-degraded",
        texts=("a drive in the array of {subject} failed", "{subject} runs on a degraded array"),
        subject="{host}",
        strong=(
            "Slot {few} of {host} reports a dead drive, and the rebuild starves all other I/O",
            "mdstat of {host} shows [U_] since {just}",
            "The controller of {host} dropped a disk {just} ago and switched its cache off",
        ),
        weak=(
            "A drive of {host} was swapped {long} earlier; the array is whole",
            "SMART of {host} counts {few} reallocated sectors, unchanged",
        ),
    ),
    FaultKind(
        id="overheated",
        texts=("heat throttles {subject}", "the cooling of {subject} has failed"),
        subject="{host}",
        strong=(
            "The cores of {host} are at {high} degrees and run at a fifth of their clock",
            "Two fans of {host} stand still since {just}",
            "{host} reports thermal events every few seconds",
        ),
        weak=("The room of {host} has 21 degrees", "A fan of {host} was replaced {long} earlier"),
    ),
    FaultKind(
        id="garbage-collected",
        texts=("garbage collection freezes {subject}", "the heap of {subject} leaves it no time to work"),
        strong=(
            "{service} pauses for {few} seconds at a time to collect its heap",
            "{high} % of the run time of {service} is spent in full collections",
            "After each collection {high} % of the heap of {service} is still taken",
        ),
        weak=(
            "{service} collects its heap within {few} ms",
            "The heap of {service} was enlarged {long} earlier",
        ),
    ),
    FaultKind(
        id="frames-too-large",
        texts=("large packets do not reach {subject}", "the path to {subject} takes only small frames"),
        strong=(
            "Small replies of {service} arrive, those above 1400 bytes never do",
            "The tunnel in front of {host} was set to a smaller MTU {just} ago",
            "Fragments from {service} are discarded on the way",
        ),
        weak=(
            "The MTU of {host} equals that of its peers",
            "One oversized frame was counted on {host} {long} earlier",
        ),
    ),
    FaultKind(
        id="licence-ended",
        texts=("the licence of {subject} has run out", "{subject} is not licensed any more"),
        strong=(
            "{service} declines to work: licence period over",
            "The licence server has granted {service} nothing since {just}",
            "{service} fell back to its trial mode {just} ago",
        ),
        weak=(
            "The licence of {service} lasts {few} more months",
            "{middle} % of the licensed seats of {service} are in use",
        ),
    ),
    FaultKind(
        id="job-twice",
        texts=("two runs of a job of {subject} collide", "{subject} has its nightly job twice"),
        strong=(
            "A job of {service} was started while its predecessor still ran, {just} ago",
            "Both copies of the import of {service} write to the same rows",
            "The lock file of a job of {service} was removed although the job is alive",
        ),
        weak=(
            "The nightly job of {service} finished {long} earlier",
            "A job of {other} is planned every {few} hours",
        ),
    ),
    FaultKind(
        id="neighbour-steals",
        texts=("the hypervisor gives {subject} too little time", "another guest starves {subject}"),
        subject="{host}",
        strong=(
            "{middle} % steal time on {host} since a guest was moved beside it {just} ago",
            "The virtual cores of {host} wait for the hypervisor most of the time",
            "{host} is ready to run and is not scheduled by its hypervisor",
        ),
        weak=("{few} % steal time on {host}", "{host} was moved to another hypervisor {long} earlier"),
    ),
    FaultKind(
        id="handle-stale",
        texts=("the file server behind {subject} is gone", "{subject} hangs on a stale network mount"),
        subject="{mount}",
        strong=(
            "ls {mount} never returns: the file server is not responding",
            "{service} got ESTALE {many} times from {mount}",
            "The export under {mount} was withdrawn {just} ago",
        ),
        weak=(
            "The file server under {mount} restarted {long} earlier",
            "{mount} is remote and responds within {few} ms",
        ),
    ),
    FaultKind(
        id="address-twice",
        texts=("two machines claim the address of {subject}", "another machine uses the IP of {subject}"),
        subject="{host}",
        strong=(
            "Two hardware addresses respond for the IP of {host}",
            "The switch sees the IP of {host} hop between two ports since {just}",
            "A new printer came up with the very IP of {host} {just} ago",
        ),
        weak=(
            "The lease of {host} was extended {long} earlier",
            "The hardware address of {host} is the one on file",
        ),
    ),
    FaultKind(
        id="flooded",
        texts=("a flood of requests drowns {subject}", "{subject} is under attack"),
        strong=(
            "{many}0000 requests a second hit {service}, from addresses never seen before",
            "Half-open connections fill the backlog of {service} since {just}",
            "One network sends {high} % of the requests to {service}, all for the same page",
        ),
        weak=(
            "{service} gets {few} requests a second",
            "A crawler visited {service} {long} earlier",
        ),
    ),
)
"""Never learned from."""
