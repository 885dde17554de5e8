"""What the built-in calibration asks about: faults of many systems, what each looks like, and where to look.

Every text stands in several wordings. The last of each is held out: what is told about a calibration comes
from wordings that it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, in words.

    Attributes:
        area: Which part of an installation it belongs to; a key of ``AREAS``.
        causes: What it is, continuing "because".
        looks: What shows it, continuing "look first at".
        signs: What is observed, two lines each.
    """

    area: str
    causes: tuple[str, str]
    looks: tuple[str, str]
    signs: tuple[tuple[str, str], ...]


AREAS = {
    "database": ("the database", "database management"),
    "network": ("the network", "networking"),
    "storage": ("the storage", "disks and storage"),
    "certificates": ("certificates and encryption", "the encryption setup"),
    "queue": ("the message queue", "messaging"),
    "names": ("name resolution", "the name servers"),
    "time": ("the clocks", "time keeping"),
    "kernel": ("the operating system", "the kernel and its limits"),
    "builds": ("the build pipeline", "continuous integration"),
    "cluster": ("the container cluster", "container orchestration"),
    "access": ("logins and permissions", "access control"),
    "proxy": ("the load balancer", "the reverse proxy"),
    "backup": ("the backups", "backup and recovery"),
    "hardware": ("the hardware", "physical equipment"),
}
"""Names of the areas; the last wording is held out."""

FAULTS: tuple[Fault, ...] = (
    Fault(
        "database",
        ("two transactions wait for each other's locks", "transactions block one another in a circle"),
        ("the lock waits of the open transactions", "which sessions block each other"),
        (
            ("ERROR: deadlock detected while updating orders", "A transaction was chosen as the victim"),
            ("Sessions 41 and 87 each hold what the other asks for", "The engine rolled one session back"),
            ("Updates abort with error 1213 at random", "Retrying the same statement succeeds"),
        ),
    ),
    Fault(
        "database",
        ("the replica applies changes too slowly", "the standby lags behind its primary"),
        ("the replication delay", "how far the standby is behind"),
        (
            ("Reads from {b} return data that is 14 minutes old", "The primary {a} answers with fresh data"),
            ("seconds_behind_source: 2210 and rising", "The apply thread of {b} uses one whole core"),
            ("The WAL position of {b} trails that of {a} by 9 GB", "Customers see orders vanish on reload"),
        ),
    ),
    Fault(
        "database",
        ("every connection the database allows is in use", "the pool of client sessions ran dry"),
        ("the number of open database connections", "how many sessions the server still accepts"),
        (
            ("FATAL: sorry, too many clients already", "200 of 200 sessions are taken, 180 of them idle"),
            ("Clients wait 30 s for a pool slot and give up", "max_connections was reached at noon"),
            ("Error 1040 greets each new client of {a}", "Existing sessions go on working"),
        ),
    ),
    Fault(
        "database",
        ("a query reads a whole table because an index is missing", "the planner has no index to use"),
        ("the execution plan of the slow query", "how the slow statement is executed"),
        (
            ("Seq Scan on events, rows examined: 48,000,000", "The query took 3 ms before the table grew"),
            ("The slow log shows one SELECT that takes 40 s", "EXPLAIN says type: ALL, key: NULL"),
            (
                "One report examines 90 million rows for ten results",
                "The column in its filter was never indexed",
            ),
        ),
    ),
    Fault(
        "database",
        ("old row versions were never cleaned up", "dead rows bloat the tables"),
        ("when the tables were last vacuumed", "the last run of the cleanup of rows"),
        (
            ("n_dead_tup is 310 million in table carts", "autovacuum has been off since March"),
            ("Table carts takes 80 GB for 2 GB of live rows", "No vacuum has finished for weeks"),
            ("Transaction ids wrap around in 4 million more", "A forgotten transaction is 19 days old"),
        ),
    ),
    Fault(
        "network",
        ("packets larger than the tunnel allows are dropped", "the path refuses full-sized frames"),
        ("the largest packet that gets through", "the MTU along the path"),
        (
            ("ping works, ping -s 1472 gets no answer", "Small pages load, large downloads hang"),
            ("SSH logs in and stalls at the first long listing", "The tunnel has MTU 1420, the server 1500"),
            ("Fragmentation needed, but the DF bit is set", "Only requests above 1.3 kB stall"),
        ),
    ),
    Fault(
        "network",
        ("a firewall rule drops the traffic", "packets are filtered on their way"),
        ("the firewall's rules and counters", "what the packet filter rejects"),
        (
            ("SYN packets leave {a} and nothing comes back", "The drop counter of chain FORWARD grows"),
            ("nft shows 4,120 drops for port 5432", "Since the rules were reloaded {a} cannot reach {b}"),
            ("Connections to {b} time out, they are not refused", "From inside the same segment they work"),
        ),
    ),
    Fault(
        "network",
        ("two machines use the same address", "an IP address is assigned twice"),
        ("which hardware answers for the address", "the ARP table"),
        (
            ("arping gets replies from two MAC addresses", "Half of the sessions to {a} are reset"),
            ("The kernel says: duplicate address detected", "{a} is reachable every other minute"),
            ("The switch sees 10.0.4.20 move between two ports", "A new printer was plugged in today"),
        ),
    ),
    Fault(
        "network",
        ("a link lost one half of its duplex", "the port negotiated half duplex"),
        ("the speed and duplex of the port", "what the interface negotiated"),
        (
            ("ethtool: Speed 100Mb/s, Duplex: Half", "Late collisions rise on eth0"),
            (
                "Throughput of {a} fell to 4 Mbit/s after a new cable",
                "The switch port shows full, the host half",
            ),
            ("Interface eth1 counts collisions by the thousand", "Its peer is fixed to 1000 full"),
        ),
    ),
    Fault(
        "network",
        ("traffic takes a route into nowhere", "the routing table sends packets the wrong way"),
        ("the routes of the host", "which gateway the packets take"),
        (
            ("traceroute to {b} loops between two gateways", "A static route was added on Tuesday"),
            ("Destination net unreachable, says the gateway", "ip route shows no entry for 10.8.0.0/16"),
            ("TTL exceeded for all packets to the branch office", "The BGP session went down at 03:12"),
        ),
    ),
    Fault(
        "storage",
        ("a disk of the array has failed", "the RAID set runs without one of its members"),
        ("the state of the disk array", "whether the RAID set is complete"),
        (
            ("md0: [UU_U], one device is marked (F)", "Writes are half as fast as last week"),
            ("mdadm --detail: State: clean, degraded", "sdc was kicked from its array"),
            ("The controller beeps and shows a virtual drive as degraded", "Slot 3 blinks amber"),
        ),
    ),
    Fault(
        "storage",
        ("the file system was remounted read-only", "the volume no longer takes writes after an error"),
        ("the mount options of the volume", "whether the volume is writable"),
        (
            ("EXT4-fs error, remounting filesystem read-only", "touch: Read-only file system"),
            ("/proc/mounts lists the volume with ro", "The journal was aborted at 02:41"),
            ("Saving a file fails with EROFS", "It could be written before the I/O error in dmesg"),
        ),
    ),
    Fault(
        "storage",
        ("the file system ran out of inodes", "there are too many tiny files"),
        ("the number of free inodes", "how many files the volume can still hold"),
        (
            ("df -h shows 60 % free, df -i shows 100 %", "A cache left 12 million small files"),
            ("Creating a file fails though gigabytes are free", "IUse% of the volume is 100"),
            (
                "mkdir says no space, a large file can still grow",
                "The session folder holds 9 million entries",
            ),
        ),
    ),
    Fault(
        "storage",
        ("the file server does not answer its clients", "the network share hangs"),
        ("the state of the NFS mounts", "whether the share responds"),
        (
            ("nfs: server {b} not responding, still trying", "Processes stand in state D"),
            ("ls of /mnt/share never returns", "stat on every local path is quick"),
            ("Stale file handle on each access of the export", "{b} was rebooted an hour ago"),
        ),
    ),
    Fault(
        "storage",
        ("the thin pool behind the volumes is exhausted", "more was promised than the volume group has"),
        ("the fill level of the thin pool", "how much the volume group has left"),
        (
            ("lvs: Data% of pool thin0 is 100.00", "Virtual disks pause on their next write"),
            ("dm-thin: no free data blocks available", "Guests see plenty of room"),
            ("Volumes of 8 TB stand on 5 TB of disks", "The overcommitted pool switched to out-of-data mode"),
        ),
    ),
    Fault(
        "certificates",
        ("the server does not send its intermediate certificate", "the chain of trust has a gap"),
        ("the chain the server presents", "which certificates are sent along"),
        (
            ("curl: unable to get local issuer certificate", "Browsers with a cache connect"),
            ("openssl s_client: Verification error 21", "Only the leaf is in the handshake"),
            ("Phones refuse the site, desktops accept it", "The bundle file lost its second block"),
        ),
    ),
    Fault(
        "certificates",
        ("the validity of the TLS certificate ended", "the renewal of the certificate was missed"),
        ("the notAfter date of the certificate", "until when the certificate holds"),
        (
            ("x509: certificate has expired or is not yet valid", "notAfter was yesterday at 23:59"),
            (
                "The ACME client failed its renewals for 30 days",
                "Since midnight clients break off handshakes",
            ),
            ("Alert 45 in every handshake since Sunday", "Nobody renewed the key pair from last year"),
        ),
    ),
    Fault(
        "certificates",
        ("the certificate is for another name", "the name asked for is not in the certificate"),
        ("the names in the certificate", "the subject alternative names"),
        (
            ("SSL: no alternative certificate subject name matches", "The site moved to a new domain"),
            ("The certificate says www.old.example", "Clients ask for shop.new.example"),
            ("ERR_CERT_COMMON_NAME_INVALID on the new address", "Its former address shows no warning"),
        ),
    ),
    Fault(
        "certificates",
        ("client and server share no TLS version", "the old client speaks no protocol that is still allowed"),
        ("the protocol versions both sides offer", "which TLS versions are enabled"),
        (
            ("alert: protocol version, offered TLS 1.0", "TLS 1.1 and older were disabled last night"),
            ("no protocols available in the handshake", "Only the ten-year-old scanners fail"),
            ("unsupported protocol, says the library of 2012", "The gateway was hardened on Monday"),
        ),
    ),
    Fault(
        "queue",
        (
            "a message that cannot be processed is delivered again and again",
            "one poisonous message blocks all",
        ),
        ("the message at the head of the queue", "how often the first message was redelivered"),
        (
            ("Message 7f3a was redelivered 18,204 times", "The consumer throws at the same byte each time"),
            (
                "The offset of partition 3 has stood still since 9:00",
                "The worker crashes on one JSON document",
            ),
            ("Each restart ends at the same malformed invoice", "Messages behind it are never read"),
        ),
    ),
    Fault(
        "queue",
        ("consumers are slower than producers", "the backlog grows faster than it is worked off"),
        ("the lag of the consumer group", "how deep the queue is"),
        (
            ("Lag went from 200 to 900,000 in an hour", "All consumers are busy and without errors"),
            ("Queue depth rises by 300 a second", "Two of the five workers were scaled away"),
            ("Mails arrive six hours late, none is lost", "The oldest message waits since breakfast"),
        ),
    ),
    Fault(
        "queue",
        ("the broker blocks publishers since its memory alarm", "flow control stops all senders"),
        ("the broker's alarms", "whether the broker throttles its publishers"),
        (
            ("memory resource limit alarm set on node {a}", "Connections are in state blocking"),
            ("Publishing hangs, consuming goes on", "vm_memory_high_watermark was passed"),
            ("Senders are in state flow for minutes", "The watermark log line of {a} is from 11:02"),
        ),
    ),
    Fault(
        "queue",
        ("the broker's nodes lost sight of each other", "the messaging cluster is split in two"),
        ("the membership of the broker cluster", "which broker nodes see each other"),
        (
            ("Network partition detected by node {a}", "Both halves elected a leader"),
            ("No quorum: 1 of 3 controllers reachable", "Two nodes each call themselves the leader"),
            (
                "Under-replicated partitions: 412 of 412",
                "{b} reports that {a} left, {a} reports that {b} left",
            ),
        ),
    ),
    Fault(
        "names",
        ("the zone still points to the old address", "a stale DNS record is handed out"),
        ("the record and its time to live", "what the name resolves to"),
        (
            ("dig answers 10.0.1.9, the service moved to 10.0.7.4", "The TTL is 86400"),
            (
                "Half the clients reach the switched-off server",
                "The zone was edited, its serial was not raised",
            ),
            ("One resolver returns last week's address", "Another one returns the new address"),
        ),
    ),
    Fault(
        "names",
        ("the configured resolver does not answer", "the name server is unreachable"),
        ("the resolvers in resolv.conf", "whether the name servers respond"),
        (
            ("getaddrinfo says EAI_AGAIN for every host", "Connections by address work"),
            ("dig: connection timed out; no servers could be reached", "curl by IP answers in 4 ms"),
            ("Every lookup takes 5 s and then uses the second server", "10.0.0.2 is silent on port 53"),
        ),
    ),
    Fault(
        "names",
        ("the signatures of the zone are out of date", "validation of the signed zone fails"),
        ("the DNSSEC signatures of the zone", "whether the zone validates"),
        (
            ("SERVFAIL, but dig +cd gets an answer", "RRSIG ended two days ago"),
            ("validation failure: signature expired", "Resolvers that do not validate answer"),
            ("EDE: 6 (DNSSEC Bogus) for the whole domain", "The signer has not run since the key rollover"),
        ),
    ),
    Fault(
        "time",
        ("the clock of the machine is wrong", "the host's time has drifted away"),
        ("the offset to the time server", "how wrong the clock is"),
        (
            ("Tokens of {a} are refused: issued in the future", "date on {a} is 9 minutes ahead of {b}"),
            ("Kerberos: clock skew too great", "chronyc tracking: System time 412 s slow"),
            ("Log lines of {a} appear before their cause on {b}", "ntpd is not running on {a}"),
        ),
    ),
    Fault(
        "time",
        ("jobs are scheduled in another time zone", "the scheduler counts in the wrong zone"),
        ("the time zone of the scheduler", "which zone the job times are in"),
        (
            ("The nightly job runs at 22:00 instead of midnight", "The new image has TZ=UTC"),
            ("A report covers the wrong day since the move", "The clock is right, the offset is two hours"),
            ("Since the clocks went forward all jobs start an hour off", "CRON_TZ is not set"),
        ),
    ),
    Fault(
        "kernel",
        ("the process may not open more files", "the limit of file descriptors is reached"),
        ("the number of open files of the process", "the limit on descriptors"),
        (
            ("accept: Too many open files", "/proc/812/fd has 1024 entries"),
            ("EMFILE in each request", "ulimit -n is 1024 and sockets are never closed"),
            ("lsof counts 65,535 handles of one program", "New sockets cannot be created"),
        ),
    ),
    Fault(
        "kernel",
        ("the kernel ended a process to reclaim memory", "the OOM killer struck"),
        ("the kernel log for killed processes", "whom the kernel sacrificed"),
        (
            ("Out of memory: Killed process 4411 (java)", "anon-rss was 14 GB of 16 GB"),
            ("The container ended with exit code 137", "memory.events: oom_kill 3"),
            (
                "A program vanishes without a log line of its own",
                "dmesg: oom-kill: constraint=CONSTRAINT_MEMCG",
            ),
        ),
    ),
    Fault(
        "kernel",
        ("the table of tracked connections is full", "connection tracking has no slot left"),
        ("the size of the conntrack table", "how many flows the kernel tracks"),
        (
            ("nf_conntrack: table full, dropping packet", "nf_conntrack_count equals nf_conntrack_max"),
            ("New connections fail at random under load", "262,144 of 262,144 flows are tracked"),
            ("The gateway drops SYNs when a scan runs", "Raising nf_conntrack_max helps at once"),
        ),
    ),
    Fault(
        "kernel",
        ("the new kernel lacks the driver", "a module is missing after the upgrade"),
        ("the loaded kernel modules", "which modules the running kernel has"),
        (
            ("modprobe: FATAL: Module bnx2 not found", "It worked before the reboot into 6.8"),
            ("eth0 is gone since the kernel update", "The old kernel in the boot menu shows it"),
            ("DKMS build failed for 6.8.0-45", "After the restart the array controller is unknown"),
        ),
    ),
    Fault(
        "kernel",
        ("the machine swaps without end", "pages move to and from swap all the time"),
        ("the paging rates", "how much is swapped in and out"),
        (
            ("vmstat: si 9000, so 11000, wa 80", "Each key press takes seconds"),
            ("kswapd0 is at 100 % and swap is in full use", "PSI memory full avg10=71"),
            ("Load is 60, yet user time is 2 %", "pgmajfault grows by thousands a second"),
        ),
    ),
    Fault(
        "builds",
        ("a dependency changed under the build", "an unpinned package brought a new version"),
        ("which package versions the build took", "the difference of the lock files"),
        (
            ("Yesterday's commit no longer builds", "numlib 3.0 was published overnight"),
            ("ImportError for a name that numlib 3 removed", "requirements say numlib>=1"),
            ("The same revision passed on Friday and fails today", "Only the resolved versions differ"),
        ),
    ),
    Fault(
        "builds",
        ("no runner picks the jobs up", "all build agents are offline"),
        ("the state of the build agents", "whether a runner is connected"),
        (
            ("Jobs are pending for 3 h: no matching runners online", "The registration token was revoked"),
            ("The queue has 88 jobs, 0 are running", "Agent {a} last called home on Thursday"),
            ("Pipelines stay in 'waiting for an executor'", "The label of {a} was renamed"),
        ),
    ),
    Fault(
        "builds",
        ("a test depends on the order of the tests", "a flaky test shares state with others"),
        ("the failing test run alone", "whether the order of tests matters"),
        (
            ("test_cart passes alone and fails in the suite", "Random seed 4417 fails each time"),
            ("A rerun without changes is green", "Two tests write the same temporary table"),
            ("Failures began with parallel execution", "In serial mode all 900 tests pass"),
        ),
    ),
    Fault(
        "builds",
        ("the registry refuses anonymous pulls for now", "the quota of image downloads is used up"),
        ("the registry's rate limit", "how many pulls are left"),
        (
            ("429 Too Many Requests from the registry", "toomanyrequests: increase your rate limit"),
            ("Images cannot be pulled from noon until six", "ratelimit-remaining: 0"),
            ("ErrImagePull appears on all nodes at once", "An authenticated pull works"),
        ),
    ),
    Fault(
        "cluster",
        ("no node has room for the pod's requests", "the pod asks for more than any node has free"),
        ("the free resources of the nodes", "what the scheduler says about the pod"),
        (
            ("0/6 nodes are available: 6 Insufficient cpu", "The pod stays Pending"),
            ("FailedScheduling since the memory request was raised", "kubectl top shows idle nodes"),
            ("New replicas wait for hours, old ones run", "Requests add up to 98 % on every worker"),
        ),
    ),
    Fault(
        "cluster",
        ("the readiness probe asks the wrong port", "the probe never succeeds as it is written"),
        ("the probe of the deployment", "how readiness is checked"),
        (
            ("Readiness probe failed: connection refused on 8081", "The program listens on 8080 and answers"),
            ("Pods run but are 0/1 ready", "Endpoints of the service are empty since the probe was edited"),
            ("A shell in the pod gets 200, the kubelet gets refused", "containerPort was renumbered"),
        ),
    ),
    Fault(
        "cluster",
        ("the secret that the pod mounts does not exist", "a referenced secret is missing"),
        ("the secrets of the namespace", "whether the referenced objects exist"),
        (
            ("CreateContainerConfigError: secret db-pass not found", "It works in the other namespace"),
            (
                "MountVolume.SetUp failed: references non-existent secret",
                "It was deleted with the old release",
            ),
            ("Containers never leave ContainerCreating", "An object called tls-front was pruned"),
        ),
    ),
    Fault(
        "cluster",
        ("the key-value store of the control plane is slow", "etcd cannot sync to disk quickly enough"),
        ("the latency of etcd", "how long etcd's fsync takes"),
        (
            ("etcd: apply request took too long (3.1 s)", "wal_fsync p99 is 900 ms"),
            ("kubectl times out now and then", "leader changed 14 times in an hour"),
            ("The API server returns 504 during backups", "The control plane shares a slow disk"),
        ),
    ),
    Fault(
        "access",
        ("the password of the account has run out", "the credentials were rotated and not replaced"),
        ("the age of the credentials", "when the password was changed"),
        (
            ("password authentication failed for user report", "The secret was rotated at 06:00"),
            (
                "530 Login incorrect in each nightly transfer",
                "The account's password is 91 days old, limit 90",
            ),
            ("HTTP 401 since the API token was renewed", "The job still sends the former one"),
        ),
    ),
    Fault(
        "access",
        ("the files belong to another user", "ownership of the folder was changed"),
        ("the owner of the files", "who may write to the folder"),
        (
            ("open: Permission denied in the upload folder", "ls -l shows root root since the copy"),
            ("The service runs as www and the files are 0600 of deploy", "After the restore uploads fail"),
            ("EACCES for uid 33", "Someone ran the installer with sudo"),
        ),
    ),
    Fault(
        "access",
        ("the mandatory access rules forbid it", "SELinux denies the access"),
        ("the audit log for denials", "what the security module blocked"),
        (
            ("avc: denied { name_connect } for httpd_t", "chmod 777 changes nothing"),
            ("It works after setenforce 0", "The file has context default_t"),
            ("type=AVC entries appear at each request", "Unix permissions are correct"),
        ),
    ),
    Fault(
        "access",
        ("the directory server cannot be reached", "central login is down"),
        ("the connection to LDAP", "whether the directory answers"),
        (
            ("sssd: backend is offline", "id alice: no such user, local accounts work"),
            ("Can't contact LDAP server (-1)", "Nobody can log in but root"),
            ("Group memberships vanish on all hosts at once", "Port 636 of {b} is closed"),
        ),
    ),
    Fault(
        "proxy",
        (
            "the proxy gives up before the backend answers",
            "the gateway's patience is shorter than the request",
        ),
        ("the timeouts of the proxy", "how long the gateway waits"),
        (
            ("504 after exactly 60.0 s", "The backend finishes the export after 75 s"),
            ("upstream timed out while reading response header", "Short requests are fine"),
            (
                "Long reports fail at the same second each time",
                "Asked directly, the application delivers them",
            ),
        ),
    ),
    Fault(
        "proxy",
        ("requests are larger than the proxy accepts", "uploads exceed the limit of the gateway"),
        ("the size limit for request bodies", "how large a body may be"),
        (
            ("413 Request Entity Too Large", "Files below 1 MB can be uploaded"),
            ("client intended to send too large body: 8 MB", "client_max_body_size has its default"),
            ("Photos of new phones are refused, old ones pass", "The backend never sees those requests"),
        ),
    ),
    Fault(
        "proxy",
        ("all visitors are sent to one backend", "the balancing is lopsided"),
        ("how requests are shared among backends", "the requests per backend"),
        (
            ("{a} serves 9,000 requests a minute, {b} serves 12", "Sticky cookies never end"),
            ("One of four backends has load 30, the others 0.1", "Hashing uses the address of the CDN"),
            ("Adding servers does not lower the load of {a}", "Weight 100 stands beside weight 1"),
        ),
    ),
    Fault(
        "backup",
        ("the backup ends before it copied everything", "the copies are incomplete"),
        ("the log of the last backup", "what the last copy left out"),
        (
            ("Backup ended with code 24: some files vanished", "The archive is 2 GB, usually it has 90"),
            ("The dump ends in the middle of a table", "pg_dump lost its connection at 01:20"),
            ("A test restore misses all folders after M", "The job is killed at its time limit"),
        ),
    ),
    Fault(
        "backup",
        ("a forgotten lock keeps the backup from starting", "a stale lock stops every run"),
        ("the locks of the repository", "who holds the backup's lock"),
        (
            ("repository is already locked by PID 991 on {b}", "{b} was reinstalled last month"),
            ("Each run ends after a second: lock exists", "No other backup is running"),
            ("unlock was never called after the crash in May", "No snapshot is younger than that crash"),
        ),
    ),
    Fault(
        "hardware",
        ("the machine is too hot and slows itself down", "the processor throttles for heat"),
        ("the temperatures and fans", "how warm the processor is"),
        (
            ("CPU clock throttled, temperature above threshold", "Fan 2 reads 0 rpm"),
            ("The clock fell from 3.4 to 0.8 GHz", "The room's cooling failed at noon"),
            ("Jobs take four times as long on {a} alone", "Package temperature 99 C"),
        ),
    ),
    Fault(
        "hardware",
        ("a memory module is defective", "RAM returns wrong bits"),
        ("the ECC error counters", "the corrected memory errors"),
        (
            ("EDAC MC0: 41 CE on DIMM_B2", "Programs crash at different places"),
            (
                "Machine check: uncorrected error, bank 8",
                "Checksums differ between two reads of a cached file",
            ),
            ("memtest finds errors at one address", "{a} panics about once a day"),
        ),
    ),
    Fault(
        "hardware",
        ("one power supply has failed", "the server runs without redundant power"),
        ("the state of the power supplies", "whether both feeds deliver"),
        (
            ("IPMI: PS2 Status: Failure detected", "Power redundancy lost"),
            ("The rack's B feed draws 0 W", "The management board warns since the storm"),
            ("An amber light on {a} and one silent fan in its rear", "sel list: AC lost on unit 2"),
        ),
    ),
)
