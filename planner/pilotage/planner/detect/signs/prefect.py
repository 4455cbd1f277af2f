# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs in Prefect's own messages, taken from the sources of Prefect 3.6 to 3.9 and of its worker packages."""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import CRASHED, FAILED, FailureRule, coded, phrases, words
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule

ALIVE: tuple[FailureRule, ...] = (
    # concurrency/_leases.py: the run's scope is cancelled, its process has been seen to live on (18839, 18893)
    R(id="lease-lost", failure_class=F.MAY_STILL_BE_RUNNING, because="its slot's lease was lost, which does not end its process",
      phrases=phrases("concurrency lease renewal failed * terminating execution", "concurrency lease renewal failed - slots are no longer reserved. terminating")),
    R(id="heartbeats-missing", failure_class=F.MAY_STILL_BE_RUNNING, because="called dead because its heartbeats stayed away",
      phrases=phrases("missing heartbeats", "missed heartbeat", "no heartbeat", "zombie flow run", "without heartbeats", "heartbeat timeout", "zombie job", "detected zombie", "heartbeat was lost")),
    R(id="watch-lost", failure_class=F.MAY_STILL_BE_RUNNING, because="whoever watched it lost sight of it; nothing says that it ended",
      phrases=phrases("an error occurred while monitoring flow run", "job will continue to run", "may still be running", "final state will be determined by the execution environment", "no longer in the running state", "shouldn't be running anymore", "not running anymore", "infrastructure may still be running",
                      "timed out after * while watching", "error while watching", "job did not complete within timeout", "cannot verify whether an execution", "was already started on the server",
                      "unable to determine the status of", "unable to retrieve * state of", "lost track of", "lost contact with the", "lost connection to the worker * still")),
    R(id="job-outlives", failure_class=F.MAY_STILL_BE_RUNNING, because="it stopped waiting for a job elsewhere, which may go on",
      phrases=phrases("max wait time of * exceeded", "max attempts reached while checking status", "timed out waiting for job", "timed out waiting for the job", "timeout waiting for job", "timed out * waiting for * to complete", "timed out * waiting for * to finish", "timed out while polling", "exceeded the maximum number of polls", "did not reach a final state within", "gave up waiting for")),
    R(id="child-outlives", failure_class=F.MAY_STILL_BE_RUNNING, because="it stopped waiting for another run, which may go on", strength="code",
      exceptions=words("FlowRunWaitTimeout DbtCloudJobRunTimedOut DatabricksJobRunTimedOut DbtCloudJobTriggerTimedOut AirbyteSyncJobTimedOut")),
    # a request that makes infrastructure and gets no answer, or 5xx, may have made it all the same
    R(id="submission-unanswered", failure_class=F.MAY_STILL_BE_RUNNING, because="its submission got no clear answer, so it may have been started",
      state_types=CRASHED, codes=coded("http", "500 502 503 504"), phrases=phrases("failed to submit flow run", "could not be submitted to infrastructure", "submission failed"),
      unless=phrases("images/create", "image", "registry", "docker", "oauth2", "token", "connection refused", "failed to establish a new connection")),
    R(id="submission-timed-out", failure_class=F.MAY_STILL_BE_RUNNING, because="its submission was sent and not answered, so it may have been started",
      state_types=CRASHED, phrases=phrases("failed to submit flow run", "could not be submitted to infrastructure", "submission failed"),
      also=phrases("read timed out", "readtimeout", "read timeout", "timeouterror", "remoteprotocolerror", "serverdisconnected", "server disconnected", "connection reset", "deadline exceeded", "incompleteread", "remotedisconnected", "readerror", "operation timed out"),
      unless=phrases("images/create", "pull", "registry", "oauth2", "token", "connect timeout", "connecttimeout", "docker")),
    R(id="already-running", failure_class=F.MAY_STILL_BE_RUNNING, because="another process runs it already",
      phrases=phrases("aborted by orchestrator", "has already started", "this run has already been started", "run is already running", "already in a running state", "another instance * is running", "is already being executed")),

)  # fmt: skip

MAY_START: tuple[FailureRule, ...] = (
    # the last of the strong signs: whatever says why it did not start says more
    R(id="pod-may-start", failure_class=F.MAY_STILL_BE_RUNNING, because="it was given up before its pod started, and may start yet",
      phrases=phrases("pod never started", "no tasks or failures were returned", "pod launching failed", "pod failed to start", "timed out waiting for pod", "timed out waiting for the pod", "pod took too long to start", "pod took longer than", "timed out after * waiting for container start", "while watching waiting for container start", "container start timed out", "waiting for pod to start"),
      unless=phrases("unschedulable", "insufficient", "failedscheduling", "imagepull", "errimage", "failedmount", "quota", "node(s)", "invalidimagename", "createcontainer", "no such image")),
)  # fmt: skip

MESSAGES: tuple[FailureRule, ...] = (
    R(id="parameters-refused", failure_class=F.BAD_INPUT, because="the parameters do not fit the flow",
      phrases=phrases("validation of flow parameters failed", "flow run received invalid parameters", "error binding parameters for function", "function expects parameters", "validation failed for field 'parameters", "missing a required argument", "is not a valid parameter", "invalid parameters for flow")),
    R(id="parameters-type", failure_class=F.BAD_INPUT, because="the parameters do not fit the flow",
      exceptions=words("ParameterTypeError ParameterBindError SignatureMismatchError ReservedArgumentError")),
    R(id="slot-wait", failure_class=F.CAPACITY, because="no slot of a concurrency limit came free in time",
      phrases=phrases("attempt to acquire concurrency slots timed out", "deployment concurrency limit reached", "concurrency limit reached", "concurrency limit has been reached"),
      exceptions=frozenset()),
    R(id="slot-wait-type", failure_class=F.CAPACITY, because="no slot of a concurrency limit came free in time",
      exceptions=words("AcquireConcurrencySlotTimeoutError")),
    R(id="limit-missing", failure_class=F.ENVIRONMENT, because="a concurrency limit that it names does not exist",
      phrases=phrases("must be created before acquiring slots")),
    R(id="pull-auth", failure_class=F.AUTH, because="the flow's repository refused the credentials",
      phrases=phrases("failed to clone repository", "failed to pull from remote", "failed to fetch", "git clone", "'git', 'clone'", "git_clone", "pull step", "deployments.steps"),
      also=phrases("authentication failed", "invalid username or", "could not read username", "permission denied (publickey", "access denied", "403", "401", "invalid credentials", "bad credentials", "host key verification failed")),
    R(id="pull-network", failure_class=F.TRANSIENT, because="the flow's code could not be fetched over the network",
      phrases=phrases("failed to clone repository", "failed to pull from remote", "failed to fetch", "git clone", "'git', 'clone'", "git_clone", "pull step", "deployments.steps"),
      also=phrases("could not resolve host", "connection timed out", "connection reset", "early eof", "rpc failed", "returned error: 50", "returned error: 429", "temporary failure", "timed out", "unexpected disconnect", "hung up unexpectedly", "failed to connect", "gnutls", "read timeout", "503", "502", "504")),
    R(id="script-failed", failure_class=F.ENVIRONMENT, because="the flow's file could not be imported where the run is executed",
      phrases=phrases("script at * encountered an exception", "scripterror", "error while loading flow", "when trying to load flow", "failed to load flow", "error loading flow from entrypoint", "failed to import flow", "unable to import flow"),
      unless=phrases("connection reset", "temporary failure in name resolution", "503 service unavailable")),
    R(id="flow-not-found", failure_class=F.ENVIRONMENT, because="the worker could not find the flow's code",
      phrases=phrases("could not find flow", "flow function with name", "flow '* not found in", "function with flow name", "no flow found in", "flow with name * not found", "missingflowerror", "unspecifiedflowerror", "failed to find flow", "entrypoint * not found",
                      "entrypoint * does not exist", "flow could not be retrieved from deployment", "does not have an entrypoint", "no entrypoint", "has no attribute 'fn'")),
    R(id="pull-failed", failure_class=F.ENVIRONMENT, because="the flow's code could not be fetched",
      phrases=phrases("failed to clone repository", "failed to pull from remote", "failed to pull from", "git clone", "git_clone", "pull step * failed", "step 'prefect.deployments.steps", "deployments.steps", "remote branch * not found", "remote: repository not found", "failed to download from", "pull_with_block", "unable to load block")),
    R(id="block-missing", failure_class=F.ENVIRONMENT, because="a block, variable or secret that it names does not exist",
      phrases=phrases("unable to find block document", "block document not found", "unable to find block", "no block found", "no class found for dispatch key", "block type * not found", "variable * not found", "unable to find variable", "could not find variable",
                      "unable to find secret", "secret block * not found", "invalid block", "unable to locate block", "has no capability", "could not find the environment variable")),
    R(id="block-missing-type", failure_class=F.ENVIRONMENT, because="a block or another object of Prefect's that it names does not exist",
      exceptions=words("BlockMissingCapabilities MissingProfileError ProfileSettingsValidationError ConfigurationError InvalidRepositoryURLError ObjectLimitReached ObjectUnsupported ProtectedBlockError")),
    R(id="command-not-started", failure_class=F.ENVIRONMENT, because="the command of the run could not be started", strength="code",
      state_types=CRASHED, codes=coded("exit", "126 127")),
    R(id="template-wrong", failure_class=F.ENVIRONMENT, because="the pool's job template or its variables are not valid",
      phrases=phrases("is missing required attributes at the following paths", "has incompatible values for the following attributes", "invalid job manifest template", "base job template", "job_variables", "job variables", "validation failed for field 'job_variables", "failed validation * job configuration", "job configuration * validation error", "is not a valid value for variable", "a task definition must be provided", "must be marked as essential", "an execution role arn must be set", "an `execution_role_arn` must be provided", "not compatible with launch type", "cannot be used with launch type", "network configuration cannot be inferred", "due to a network configuration error", "task definition is inactive", "container * not found in task definition", "does not appear to have any container instances", "no container instances were found", "cluster * not found. confirm", "failed to find vpc", "must provide a `vpc_id`"),
      unless=phrases("500 internal server error", "503 service")),
    R(id="work-pool-missing", failure_class=F.ENVIRONMENT, because="the work pool or deployment that it names does not exist",
      phrases=phrases("work pool * not found", "work pool * does not exist", "deployment * not found", "deployment * no longer exists", "no deployment found", "work queue * not found", "is paused; cannot")),
    R(id="prefect-404", failure_class=F.ENVIRONMENT, because="Prefect's API does not know what the run asked for",
      exceptions=words("ObjectNotFound"),),
    R(id="client-server-versions", failure_class=F.CODE_BUG, because="Prefect's API does not accept what this client sends",
      exceptions=words("PrefectHTTPStatusError"), codes=coded("http", "400 405 409 413 415 422"), strength="code"),
    R(id="paused-for-good", failure_class=F.TIMED_OUT, because="it was paused and nobody resumed it", cure=Cure.OWNER,
      phrases=phrases("timed out waiting for input", "the flow was paused and never resumed", "flow run was paused and never resumed")),
    R(id="too-big-for-prefect", failure_class=F.BAD_INPUT, because="what it sends is larger than Prefect takes",
      phrases=phrases("event is too large to emit", "parameters * cannot be larger", "flow run parameters * kb", "exceeds the maximum size", "message size larger than max", "block document * too large", "parameter payload is too large", "grpc message exceeds maximum size", "received message larger than max")),
    R(id="api-unreachable", failure_class=F.TRANSIENT, because="Prefect's API could not be reached",
      phrases=phrases("failed to reach api", "request failed while attempting to contact the server", "request to * failed: connect", "request to * failed: read", "request to * failed: pool", "prefect api * unavailable", "unable to connect to prefect", "failed to connect to the prefect", "timed out during opening handshake", "can't connect to server api", "api_url * could not be reached", "error communicating with api", "server disconnected without sending")),
    R(id="api-database", failure_class=F.TRANSIENT, because="Prefect's own database was too slow or busy", strength="code", despite=words("query-time-limit pg-cancelled"),
      phrases=phrases("error validating state: dbapierror", "received abort during orchestration: error validating", "error validating state: timeouterror", "queuepool limit of size", "error validating state: operationalerror", "error validating state")),
    R(id="context-missing", failure_class=F.CODE_BUG, because="something of Prefect's is used outside of a run",
      exceptions=words("MissingContextError MappingLengthMismatch MappingMissingIterable NotPausedError InvalidNameError HashError SerializationError EventTooLarge")),
    R(id="not-picklable", failure_class=F.CODE_BUG, because="a value cannot be serialised",
      phrases=phrases("cannot pickle", "can't pickle", "cannot be pickled", "object is not json serializable", "is not json serializable", "picklingerror", "failed to serialize object", "the serialize", "could not serialize object of type")),
    R(id="event-loop-misuse", failure_class=F.CODE_BUG, because="asynchronous code is used wrongly",
      phrases=phrases("asyncio.run() cannot be called from a running event loop", "this event loop is already running", "attached to a different loop", "was never awaited", "event loop is closed", "no running event loop", "object can't be used in 'await'")),
    R(id="not-prefect", failure_class=F.ENVIRONMENT, because="Prefect or its command is not installed as the worker expects",
      phrases=phrases("no module named prefect", "prefect: command not found", "command 'prefect' not found", "the prefect command", "prefect.engine: not found")),
)  # fmt: skip

ENDS: tuple[FailureRule, ...] = (
    # what the state alone says, when nothing above did
    R(id="timed-out-state", failure_class=F.TIMED_OUT, because="Prefect ended it at its time limit", strength="builtin",
      state_names=frozenset({"TimedOut"}), phrases=phrases("exceeded timeout of")),
    R(id="timed-out-type", failure_class=F.TIMED_OUT, because="it ran longer than its time limit", strength="code",
      exceptions=words("TaskRunTimeoutError FlowRunTimeoutError")),
    R(id="timed-out-text", failure_class=F.TIMED_OUT, because="it ran longer than its time limit", strength="phrase",
      phrases=phrases("flow run exceeded timeout of", "task run exceeded timeout of", "exceeded timeout of * second")),
)  # fmt: skip

LAST: tuple[FailureRule, ...] = (
    R(id="submission-failed", failure_class=F.INFRASTRUCTURE, because="the infrastructure could not be created", strength="weak",
      state_types=CRASHED, phrases=phrases("could not be submitted to infrastructure", "failed to submit flow run to infrastructure", "failed to generate job configuration", "flow run bundle could not be created", "flow run process could not be started", "flow run could not start", "infrastructure could not", "infrastructure failed to", "submission failed", "failed to start process for flow run", "failed to generate")),
    R(id="not-executable", failure_class=F.ENVIRONMENT, because="the command could not be started", strength="weak",
      codes=coded("exit", "125 126 127")),
    R(id="memory-exit-247", sure=0.9, failure_class=F.OUT_OF_MEMORY, because="exit code 247 stands for high memory usage", strength="weak",
      codes=coded("exit", "247")),
    R(id="memory-likely", sure=0.8, failure_class=F.OUT_OF_MEMORY, because="a container killed without another sign has mostly run out of memory", strength="weak",
      codes=coded("exit", "137"), phrases=phrases("likely due to an out-of-memory", "infrastructure exited", "container", "exit code 137", "docker", "pod")),
    R(id="command-killed", failure_class=F.OUT_OF_MEMORY, because="a program that the run started was killed, mostly for its memory", strength="weak", sure=0.75,
      state_types=FAILED, codes=coded("exit", "-9 137") | coded("signal", "9")),
    R(id="killed", sure=0.75, failure_class=F.CRASHED, because="the process was killed, mostly for its memory, and nothing says by whom", strength="weak", cure=Cure.MEMORY,
      codes=coded("exit", "-9 137") | coded("signal", "9")),
    R(id="terminated", sure=0.85, failure_class=F.CRASHED, because="the process was asked to end", strength="weak",
      codes=coded("exit", "-15 143 -2 130 3221225786") | coded("signal", "15 2")),
    R(id="died-in-native-code", sure=0.8, failure_class=F.CRASHED, because="the process died in native code", strength="weak", cure=Cure.OWNER,
      codes=coded("exit", "-11 139 -6 134 -7 135 -4 132 -8 136 3221225477") | coded("signal", "11 6 7 4 8")),
    R(id="exit-of-its-own", sure=0.7, failure_class=F.CRASHED, because="the process ended itself with an error and left no word of why", strength="weak", cure=Cure.OWNER,
      state_types=CRASHED, codes=coded("exit", "1 2 3 4 5 64 65 66 78 255 256")),
    R(id="end-not-seen", failure_class=F.MAY_STILL_BE_RUNNING, because="status -1 is what a worker reports that did not see how the run ended", strength="weak", sure=0.8,
      state_types=CRASHED, codes=coded("exit", "-1")),
    R(id="system-exit", failure_class=F.CRASHED, because="the code ended the process itself", strength="weak", cure=Cure.OWNER,
      phrases=phrases("aborted by python system exit call")),
    R(id="aborted", sure=0.85, failure_class=F.CRASHED, because="the process was asked to end", strength="weak", state_types=CRASHED,
      phrases=phrases("aborted by a termination signal", "aborted by an interrupt signal", "cancelled by the runtime environment")),
    R(id="crashed", failure_class=F.CRASHED, because="the process ended without a word of its own code", strength="weak",
      state_types=CRASHED),
)  # fmt: skip
