"""Text that speaks to whoever reads it: a plain detector of instructions in logs, names and tickets.

Data of a system states what happened. Text that addresses an operator or an agent, that tells the reader
to do something, or that holds the control tokens of a chat model or a destructive command does not belong
there; whoever finds it should look before a model does. The detector only marks: what protects is that
such text never reaches an agent with tools.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum


class Suspicion(StrEnum):
    """Why a text is suspicious; each is a phrase that may follow "text that"."""

    CHAT_CONTROL = "holds control tokens of a chat model"
    OVERRIDE = "asks to ignore instructions or rules"
    ADDRESSED = "is addressed to an operator or an agent"
    COMMAND = "holds a destructive command"
    ORDER = "tells its reader to do something"
    REQUEST = "asks a chat model for an answer"
    HIDDEN = "holds characters that are not shown"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One pattern; a text that holds none of ``needs`` is not searched, which is many times cheaper."""

    suspicion: Suspicion
    pattern: re.Pattern[str]
    needs: tuple[str, ...] = ()


def _rule(suspicion: Suspicion, *patterns: str, needs: tuple[str, ...] = ()) -> _Rule:
    return _Rule(suspicion, re.compile("|".join(patterns)), needs)


# Where a sentence may start: at the start, after the end of another one or of a log line's prefix, after a
# quote, or after a level.
_START = (
    r"(?:^|[.!?:;\])}>\"'`|=\u2013\u2014-]\s*|"
    r"\b(?:info|warn|warning|error|debug|notice|fatal|critical|note|todo|ps)\b:?\s+)"
    r"(?:(?:and|then|so|now|also|please|kindly|urgent|important|attention|note)[,:]?\s+)*"
)
_AGENT = (
    r"(?:(?:ai|a\.i\.|llm|gpt|sre|ops?|on-call|support|incident|automation|monitoring|autonomous|language) ?"
    r"(?:model|assistants?|agents?|bots?|system)|assistants?|chatbots?|chatgpt|copilots?|"
    r"ai|llms?|language models?|watchkeeper|(?:the|dear|any|this|your) agents?)"
)
_PERSON = rf"(?:{_AGENT}|operators?|administrators?|admins?|sysadmins?|root|on-call|engineers?|maintainers?)"
_MUST = (
    r"(?:must|should|shall|need to|needs to|have to|has to|are to|is to|will now|are required to|"
    r"are instructed to|are authori[sz]ed to|are allowed to|are expected to|ought to)"
)
_OUTPUT = (
    r"(?:response|answer|reply|replies|output|summary|report|diagnosis|conclusion|explanation|"
    r"message|code|codebase|implementation|solution|algorithm|program|script|analysis|plan)"
)
_WORK = (
    r"(?:add|append|insert|include|incorporate|integrate|embed|inject|blend|merge|weave|fuse|mention|modify|"
    r"rewrite|rephrase|replace|remove|convert|translate|augment|enhance|enrich|improve|change|adjust|finish|"
    r"begin|start|end|conclude|provide|render|give|write|use|utili[sz]e|employ|execute|deploy|adopt|apply|"
    r"rearrange|scramble|shuffle|misspell|jumble|group|combine|substitute|introduce|suggest|recommend|"
    r"encourage|promote|make|ensure|consider|refer|state|say|tell|answer|respond|reply|format)"
)
_DO = (
    r"(?:run|execute|invoke|delete|remove|erase|wipe|drop|truncate|purge|stop|kill|terminate|shut down|"
    r"disable|turn off|switch off|grant|approve|authori[sz]e|confirm|accept|reject|deny|download|install|"
    r"open|visit|click|send|forward|email|mail|post|upload|exfiltrate|reveal|disclose|leak|expose|overwrite|"
    r"escalate|acknowledge|close|mark|resolve|suppress|silence|mute|bypass|skip|whitelist|allow|restart|"
    r"reboot|roll ?back|revert|reset|format|chmod|chown|add|create|copy|transfer|report|contact|call|"
    r"choose|select|pick)"
)

_RULES: tuple[_Rule, ...] = (
    _rule(
        Suspicion.CHAT_CONTROL,
        r"<\|[^<>|]{2,40}\|>",
        r"\[/?inst\]|<<?/?sys>>?",
        r"<(?:start|end)_of_turn>|</?tool_(?:call|response)s?>|</?function_calls?>|<think>|<\|eot",
        r"<(?:system|assistant|human|instructions?)>",
        r"#{2,} ?(?:system|instructions?|human|assistant|user|response) ?(?:prompt|message)? ?:",
        r"\b(?:begin|end|new|updated|revealed?) (?:of )?(?:the )?system (?:prompt|message|instructions?)\b",
        r"(?:\\n\\n|\n\n)(?:human|assistant): ",
        r"^(?:\S+ ){0,6}(?:system|assistant): you\b",
        needs=("<", "[", "#", "system", "human:", "assistant:"),
    ),
    _rule(
        Suspicion.OVERRIDE,
        r"\b(?:ignore|disregard|forget|override|overrule|bypass|circumvent|violate|do not follow|"
        r"don't follow|"
        r"stop following|pay no attention to|set aside)\b[^.!?]{0,40}"
        r"\b(?:instructions?|prompts?|rules|polic(?:y|ies)|guidelines?|directives?|directions|orders|"
        r"safeguards?|safety|guardrails?|restrictions|constraints|approvals?|context|conversation|"
        r"everything)\b",
        r"\b(?:new|updated|real|actual|revised|additional|following|your) (?:\w+ )?instructions? "
        r"(?:is|are|for|from|follow|supersede|below|:)",
        r"\byour (?:new |real |only |first |main |next )?(?:instructions?|task|goal|objective|job|role|"
        r"mission|"
        r"orders|purpose)\b",
        r"\bsystem prompt\b|\bjailbreak\b|\bdeveloper mode\b|\bdan mode\b|\bprompt injection\b",
        r"\byou are (?:now |no longer |actually )?(?:an? |the |in |my )?"
        r"(?:ai|assistant|agent|llm|chatbot|bot|language model|admin\w*|root|operator|expert|hacker|"
        r"free|unrestricted)\b",
        r"\b(?:act|behave|respond|pretend|role-?play) (?:as|like) (?:if|though|an?|the|you|my)\b",
        r"\byou (?:now )?have (?:now )?(?:been (?:given|granted) )?(?:full |my |our |root |admin )?"
        r"(?:permission|authori[sz]ation|access|approval|clearance)\b|\byou are (?:now )?in \w+ mode\b",
        r"\bpretend (?:to be|that you|you)\b|\bfrom now on,? (?:you|always|never|all|every|do)\b",
    ),
    _rule(
        Suspicion.ADDRESSED,
        rf"\b(?:attention|dear|hello|hi|hey|note (?:to|for)|message (?:to|for|from)|notice (?:to|for)|"
        rf"instructions? (?:to|for|from)|reminder (?:to|for)|to (?:the|any|all|whichever|every))\b,? "
        rf"(?:the |all |any |every |our |your |my )?{_PERSON}\b",
        rf"\b{_PERSON}\b[,:]? (?:reading|processing|analy[sz]ing|handling|investigating|looking|watching|"
        rf"parsing|reviewing|summari[sz]ing)\b",
        rf"\b(?:you|{_PERSON}|whoever reads this)\b,? (?:\w+ )?{_MUST} (?:\w+ly )?(?:not )?{_DO}\b",
        rf"\bas (?:an?|the|your) {_PERSON}\b,? (?:\w+ ){{0,3}}(?:i|you|we|your)\b",
        rf"\b{_AGENT}[,:] (?:please |kindly |you |now |i |this |do |stop )",
        rf"{_START}{_AGENT}[,:] (?:please |kindly |immediately )?{_DO}\b",
        r"\bi(?:'m| am) (?:the|your|an?) (?:real |new |system |network |senior |site )?"
        r"(?:admin\w*|operator|owner|developer|creator|manager|user|boss|supervisor)\b",
    ),
    _rule(
        Suspicion.COMMAND,
        r"\brm (?:-[a-z-]+ )*-[a-z]*(?:r[a-z]*f|f[a-z]*r)[a-z]* ",
        r"\brm (?:-[rf] +){2,}|\brm --recursive|--no-preserve-root",
        needs=("rm -", "--no-preserve"),
    ),
    _rule(
        Suspicion.COMMAND,
        r"\bmkfs(?:\.[a-z0-9]+)?\b[ (]",
        r"\bof=/dev/(?:sd|nvme|vd|xvd|mmcblk|disk)|>\s*/dev/(?:sd|nvme|vd|xvd)[a-z0-9]",
        r"\b(?:shred|wipefs|blkdiscard|sgdisk --zap-all) -?[-/a-z]",
        r"\bvssadmin delete\b|\bformat c:",
        needs=("mkfs", "/dev/", "shred ", "wipefs ", "blkdiscard ", "sgdisk ", "vssadmin", "format c"),
    ),
    _rule(
        Suspicion.COMMAND,
        r"\bdrop (?:table|database|schema|user|role|index|view|collection)\b",
        r"\btruncate table\b|\bdelete from \w+(?:\.\w+)? ?(?:;|$|where (?:1 ?= ?1|true))",
        needs=("drop ", "truncate ", "delete from "),
    ),
    _rule(
        Suspicion.COMMAND,
        r"\b(?:curl|wget|fetch)\b[^|;&]{0,200}\|\s*(?:sudo +)?(?:ba|z|da|k)?sh\b",
        r"\b(?:curl|wget)\b[^|]{0,200}(?:&&|;)\s*(?:sudo +)?(?:(?:ba)?sh|chmod|python\d?|\./)",
        r"\b(?:ba)?sh <\(|\bbase64 (?:-d|--decode)[^|]{0,80}\|\s*(?:ba)?sh\b|/dev/tcp/\d|\bnc(?:at)? -e\b",
        needs=("curl", "wget", "fetch", "sh <(", "base64 ", "/dev/tcp", "nc -e", "ncat -e"),
    ),
    _rule(
        Suspicion.COMMAND,
        r"\bchmod (?:-r )?(?:0?777|a\+rwx|u\+s|\+s)\b|\bchown -r\b",
        r"\bsudo (?:-\w+ )*(?:rm|dd|mkfs|shutdown|reboot|poweroff|halt|kill\w*|systemctl (?:stop|"
        r"disable|mask)|"
        r"chmod|userdel|usermod|visudo|bash|sh|su|iptables)\b",
        r"\bkill -(?:9|kill) -1\b|\bkillall -9\b|\bpkill -9\b|\bsystemctl (?:stop|disable|mask) [a-z@*-]+",
        r"\biptables (?:-f\b|--flush)|\bufw disable\b|\bsetenforce 0\b|\bhistory -c\b|\bcrontab -r\b",
        needs=(
            "chmod ",
            "chown ",
            "sudo ",
            "kill",
            "systemctl ",
            "iptables ",
            "ufw ",
            "enforce ",
            "history -",
            "crontab",
        ),
    ),
    _rule(
        Suspicion.COMMAND,
        r"\bkubectl delete\b|\bterraform destroy\b|\bdocker (?:rm -f|system prune)\b|\bhelm uninstall\b",
        r"\bgit (?:push (?:-f|--force)|reset --hard)\b",
        needs=("kubectl ", "terraform ", "docker ", "helm ", "git "),
    ),
    _rule(
        Suspicion.COMMAND,
        r"\bos\.(?:system|remove|unlink|popen)\(|\bshutil\.rmtree\(|\bsubprocess\.(?:run|call|popen|"
        r"check_\w+)\(",
        r"\beval\(|\bexec\(open\(|\b__import__\(|\bpickle\.loads?\(|:\(\) ?\{ ?:\|:& ?\};:",
        r"\$\([a-z][^)]{0,80}\)|`(?:curl|wget|rm|bash|sh|nc|cat /etc)[^`]*`|\$\{jndi:",
        needs=("(", "`", "${jndi:"),
    ),
    _rule(
        Suspicion.ORDER,
        rf"\b(?:please|kindly|immediately|urgently|you must|you should|you need to|you have to|"
        rf"be sure to|make sure to|make sure (?:that )?you|remember to|do not forget to|don't forget to|"
        rf"don't hesitate to|do not hesitate to|feel free to|go ahead and|we need you to|i need you to|"
        rf"i want you to|your job is to|it is safe to|to (?:fix|resolve|repair) (?:this|it),?) (?:now |"
        rf"also )?{_DO}\b",
        rf"{_START}(?:just |first |immediately )?(?:run|execute|paste|type|enter) "
        rf"(?:[`'\"$/]|(?:the |this |these |following |below )+(?:\w+ )?(?:command|script|code|query|steps?|"
        rf"sql|statement|snippet|program|binary|file|tool|action)|sudo |bash |sh |curl |wget |rm |"
        rf"python\d? )",
        rf"{_START}(?:immediately |just )?(?:delete|remove|wipe|erase|drop|purge|overwrite|disable|stop|kill|"
        r"shut down|turn off|restart|reboot|grant|approve|reveal|disclose|upload|exfiltrate|forward|"
        r"whitelist|"
        r"suppress|silence) (?:all|every|everything|any|the|this|these|your|that|me|it|"
        r"them)\b(?! \w+ failed)",
        r"\b(?:do not|don't|never) (?:tell|inform|notify|alert|escalate|report|mention|warn|ask|wait for|"
        r"contact|verify|investigate|restart|stop|log)\b",
        r"\bwithout (?:asking|approval|confirmation|permission|telling|notifying|waiting)\b",
        r"\bmark (?:this|the|it) (?:\w+ )?(?:as )?(?:resolved|closed|safe|done|approved|false positive)\b",
        rf"{_START}(?:send|post|upload|forward|email|transmit) (?:\w+ ){{1,8}}to (?:https?:|www\.|\S+@\S+)",
    ),
    _rule(
        Suspicion.REQUEST,
        rf"\b(?:{_WORK}|mak(?:e|ing)|in|into|to|from|of|with|for|let|consider \w+ing)\b[^.!?]{{0,80}}"
        rf"\byour (?:next |final |own |whole )?(?:\w+'s )?{_OUTPUT}\b",
        rf"\byour {_OUTPUT}\b[^.!?]{{0,40}}\b(?:should|must|could|with|by|includes?|contains?)\b",
        needs=("your ",),
    ),
    _rule(
        Suspicion.REQUEST,
        rf"{_START}{_WORK}\b[^.!?]{{0,60}}\b(?:the )?(?:following|subsequent|below|ensuing) "
        r"(?:code|snippet|script|text|sentence|block|excerpt|paragraph|program|function|link)",
        needs=("following ", "subsequent ", "below ", "ensuing "),
    ),
    _rule(
        Suspicion.REQUEST,
        rf"{_START}(?:respond|answer|reply) (?:only |just )?(?:with|in|as)\b",
        rf"{_START}(?:(?:can|could|would|will) you (?:please |kindly )?)?(?:write|draft|compose|provide|"
        rf"explain|"
        r"describe|translate|summari[sz]e|list|tell|show|give|teach|develop|create|generate|recite|outline|"
        r"break down|calculate|solve|recommend|suggest|discuss|define|compare) "
        r"(?:me|us|a|an|the|how|why|what|users|readers|some|five|ten|three|and)\b",
        r"\b(?:users|readers|them|people|customers) (?:to |should )?(?:visit|install|download|join|reach out|"
        r"share|click|subscribe|vote|donate|buy)\b",
    ),
    _rule(
        Suspicion.REQUEST,
        r"(?:^|[.!?:\]\"']\s+|[\"'])(?:what(?:'s| is| are| was| were| does| do)|who (?:is|was|wrote|"
        r"invented|are)|"
        r"how (?:do|does|did|can|to|many|much|is|are)|why (?:do|does|is|are|did)|when (?:did|was|is)|"
        r"where (?:is|are|was|can)|which (?:is|are|of)|(?:can|could|would|"
        r"will) you)\b[^?]{3,200}\?\s*[\"']?\s*$",
        needs=("?",),
    ),
)
# Tag characters and bidirectional overrides have no use in the text of a machine; zero-width ones only in
# some scripts, so alone they are not enough.
_NOT_SHOWN = re.compile("[\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069]")
_DROPPED = re.compile(
    "[\u200b-\u200f\u2060-\u2064\ufeff\u00ad\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069]"
)
_SPACES = re.compile(r"\s+")
# A rule looks at no more of a line than this.
_LOOKED_AT = 4000


def normalize(text: str) -> str:
    """Write a text as rules read it: compatibility forms folded, nothing hidden, one blank, lower case."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _DROPPED.sub("", text))
    return _SPACES.sub(" ", text).strip().lower()


def suspicion(text: str) -> Suspicion | None:
    """Return why a text is suspicious, or None; the weightiest reason if there are several.

    A line is looked at up to its 4,000th character, a limit that is applied before normalization.
    """
    text = text[:_LOOKED_AT]
    if not text.isascii() and _NOT_SHOWN.search(text):
        return Suspicion.HIDDEN
    plain = normalize(text)
    for rule in _RULES:
        if rule.needs and not any(word in plain for word in rule.needs):
            continue
        if rule.pattern.search(plain):
            return rule.suspicion
    return None
