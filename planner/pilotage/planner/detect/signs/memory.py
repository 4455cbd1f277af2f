# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs of memory that ran out: of the process, its container, its machine's accelerator, or the other side."""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import FailureRule, coded, phrases, words
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule

MEMORY: tuple[FailureRule, ...] = (
    R(id="gpu-memory", failure_class=F.OUT_OF_MEMORY, because="the accelerator's memory ran out, which no size of the run changes", cure=Cure.OWNER, strength="code",
      phrases=phrases("cuda out of memory", "cuda error: out of memory", "cublas_status_alloc_failed", "resource exhausted: oom when allocating", "mps backend out of memory", "hip out of memory", "oom when allocating tensor")),
    R(id="query-memory", failure_class=F.DEPENDENCY, because="the query needs more memory than its server gives to one", cure=Cure.OWNER, strength="code",
      phrases=phrases("memory limit (for query) exceeded", "query exceeded per-node memory", "query exceeded distributed", "query exceeded memory limit", "resources exceeded during query execution", "there is not enough memory to run query", "query out of memory", "hybrid hash join grace")),
    R(id="others-memory", failure_class=F.CAPACITY, because="the other side ran out of memory, not the run", cure=Cure.MINUTES, strength="code",
      phrases=phrases("command not allowed when used memory", "out of shared memory", "there is insufficient system memory in resource pool", "ora-04031", "memory limit (total) exceeded", "circuit_breaking_exception", "data too large, data for", "memory limit exceeded: host memory", "53200")),
    R(id="memory-container", failure_class=F.OUT_OF_MEMORY, because="the out-of-memory killer ended it", strength="code",
      phrases=phrases("oomkilled", "oom-killed", "oom killed", "oom-killer", "oom killer", "oom_kill", "oom_reaper", "outofmemoryerror: container killed", "memory cgroup out of memory", "out of memory: kill", "container killed due to memory usage",
                      "killed by yarn for exceeding memory limits", "running beyond physical memory limits", "running beyond virtual memory limits", "killed due to out-of-memory", "killed by the oom", "memory limit of * exceeded with", "memory limit exceeded with", "exceeded memory limit of",
                      "exceeded its memory limit", "exceeded the memory limit", "used too much memory", "worker exceeded 95% memory budget", "exceeded 95% memory", "oom events", "killed by signal 9 (oom", "the container has used more memory", "memory used * exceeds limit", "oom-kill", "memory usage exceeded configured", "too much memory", "memory usage exceeds", "exceeded configured memory", "memory limit reached", "memory limit was exceeded", "exceeded * memory limit", "task used more memory than available", "slurmstepd: error: detected", "detected * oom_kill", "runtime.outofmemory"),
      unless=phrases("oomkilled=false", "oomkilled: false", "oomkilled\":false", "oomkilled\": false", "not oomkilled")),
    R(id="memory-executor", failure_class=F.OUT_OF_MEMORY, because="a container of the job's own was killed with code 137, 143 or 52, which means memory more often than not", strength="code",
      codes=coded("exit", "137 143 52"), phrases=phrases("executor", "yarn", "driver", "emr", "worker has been killed"), unless=phrases("flow run infrastructure exited", "flow run process exited")),
    R(id="evicted-memory", failure_class=F.OUT_OF_MEMORY, because="evicted for using more memory than it asked for", strength="code",
      phrases=phrases("low on resource: memory", "node had condition: [memorypressure]", "outofmemory evict")),
    R(id="memory-jvm", failure_class=F.OUT_OF_MEMORY, because="the Java heap was full", strength="code",
      phrases=phrases("java heap space", "gc overhead limit exceeded", "java.lang.outofmemoryerror", "sparkoutofmemoryerror", "unable to acquire * bytes of memory", "direct buffer memory", "metaspace", "requested array size exceeds vm limit", "not enough memory to build and broadcast", "heap out of memory", "reached heap limit")),
    R(id="memory-driver", failure_class=F.OUT_OF_MEMORY, because="the driver of the cluster stopped answering, which garbage collection or a full memory does", sure=0.75,
      phrases=phrases("driver has stopped unexpectedly", "likely due to gc", "driver is up but is not responsive", "driver_unresponsive", "signal: killed", "runtime exited with error: signal: killed")),
    R(id="memory-result-size", failure_class=F.OUT_OF_MEMORY, because="the result is larger than the driver may take, by its own setting", cure=Cure.OWNER,
      phrases=phrases("spark.driver.maxresultsize", "is bigger than spark.driver")),
    R(id="memory-text", failure_class=F.OUT_OF_MEMORY, because="an allocation failed", strength="code",
      phrases=phrases("cannot allocate memory", "cannot allocate vector", "cannot reserve * additional memory", "failed to allocate additional", "realloc of size", "unable to allocate", "std::bad_alloc", "bad_alloc", "malloc of size", "failed to allocate", "could not allocate", "out of memory", "out-of-memory error", "memoryerror", "insufficient memory", "not enough memory", "not enough space/memory", "memory exhausted", "paging file is too small", "mmap failed", "out of heap", "allocation failed"),
      unless=phrases("likely due to an out-of-memory", "insufficient memory. preemption", "nodes are available", "insufficient memory (which", "reason: insufficientmemory", "unable to allocate instance", "failed to allocate for range", "unable to allocate new", "failed to allocate instance", "unable to allocate address", "failed to allocate ip", "resource:memory")),
    R(id="memory-error", failure_class=F.OUT_OF_MEMORY, because="the code ran into its memory limit", strength="code",
      exceptions=words("MemoryError ArrayMemoryError _ArrayMemoryError ArrowMemoryError OutOfMemoryError OutOfMemoryException RayOutOfMemoryError NoMemoryError")),
)  # fmt: skip
