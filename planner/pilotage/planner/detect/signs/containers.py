# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs of container platforms: reasons of Kubernetes, stop codes of ECS, errors of Docker, Cloud Run, Container Instances."""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import FailureRule, phrases
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule
_PULL = phrases(
    "imagepullbackoff", "errimagepull", "failed to pull image", "failed to pull", "cannotpullcontainererror", "error pulling image", "images/create", "pull access denied",
    "pulling failed", "could not pull the image", "pulling image", "pull image", "cannotpullecrcontainererror", "image pull failed", "cannotpullimagemanifesterror",
)  # fmt: skip

CONTAINERS: tuple[FailureRule, ...] = (
    # -- images
    R(id="image-rate-limit", failure_class=F.RATE_LIMITED, because="the registry limits how often images are pulled", strength="code",
      phrases=phrases("toomanyrequests", "pull rate limit", "too many requests"), also=(*_PULL, *phrases("manifests/", "registry", "docker.io", "image"))),
    R(id="image-auth", failure_class=F.ENVIRONMENT, because="the registry refused the credentials or has no such image", strength="code",
      phrases=_PULL, also=phrases("unauthorized", "denied", "forbidden", "no basic auth credentials", "authentication required", "not authorized", "403", "401", "authorization failed")),
    R(id="image-network", failure_class=F.ENVIRONMENT, because="the image's registry could not be reached", strength="code", cure=Cure.OWNER,
      phrases=phrases("images/create * get \"https", "images/create * context deadline exceeded", "images/create * no such host", "images/create * connection refused", "images/create")),
    R(id="image-missing", failure_class=F.ENVIRONMENT, because="the container's image could not be had", strength="code",
      phrases=phrases("imagepullbackoff", "errimagepull", "errimageneverpull", "invalidimagename", "imageinspecterror", "registryunavailable", "cannotpullcontainererror", "cannotpullecrcontainererror", "cannotpullimagemanifesterror", "failed to pull image", "pull access denied", "manifest unknown", "manifest for * not found", "manifest not found",
                      "no such image", "image not found", "imagenotfound", "repository does not exist", "image * not found", "no matching manifest", "inaccessibleimage", "registryerrorresponse", "image * does not exist", "invalid reference format", "image platform", "exec format error", "failed to resolve reference", "name unknown: ", "image with reference", "failed to fetch image", "unable to pull image")),
    # -- a place to run
    R(id="quota-in-use", failure_class=F.CAPACITY, because="the namespace's or account's quota is used up by others at this moment", strength="code",
      phrases=phrases("exceeded quota:", "exceeding quota limits", "results in exceeding quota", "quota limits of core", "exceeded quota", "quota exceeded: * used", "failed quota:", "containergroupquotareached", "exceeding approved", "quota limit * has been reached", "would exceed * quota", "exceeds quota", "quotaexceeded * cores", "cores quota", "operation could not be completed as it results in exceeding", "resource quota evaluation timed out"),
      unless=phrases("billing", "insufficient_quota", "monthly", "queryusage", "bigquery", "credit", "disk quota", "storage quota", "per minute", "per second", "per user", "requests per", "user rate", "must specify")),
    R(id="quota-needs-limits", failure_class=F.ENVIRONMENT, because="the quota asks for limits that the job does not name", strength="code",
      phrases=phrases("failed quota: * must specify", "must specify limits", "must specify cpu", "must specify memory")),
    R(id="unschedulable", failure_class=F.CAPACITY, because="no node has room for it", strength="code",
      phrases=phrases("insufficient cpu", "insufficient memory", "insufficient nvidia", "insufficient ephemeral-storage", "insufficient pods", "too many pods", "nodes are available: * insufficient", "outofcpu", "outofmemory * node", "outofpods", "no nodes available to schedule", "0/0 nodes are available", "unexpectedadmissionerror", "didn't have free ports", "didn't find available persistent volumes", "exceed max volume count", "pod didn't trigger scale-up", "no preemption victims found"),
      unless=phrases("cannot allocate memory")),
    R(id="no-node-allowed", failure_class=F.CAPACITY, because="no node is of the kind that the job asks for, and waiting makes none", strength="code", cure=Cure.OWNER,
      phrases=phrases("untolerated taint", "didn't match pod's node affinity", "didn't match node selector", "didn't match pod anti-affinity", "didn't match pod affinity"),
      unless=phrases("insufficient cpu", "insufficient memory", "node.kubernetes.io/", "too many pods", "scale-up", "cluster-autoscaler", "insufficient nvidia")),
    R(id="no-node-fits", failure_class=F.CAPACITY, because="no node that it may run on was there", strength="code",
      phrases=phrases("nodes are available", "pod is unschedulable", "failedscheduling", "unschedulable", "cannot find a suitable node", "didn't match pod's node affinity", "had untolerated taint", "had volume node affinity conflict", "didn't match node selector")),
    R(id="no-capacity", failure_class=F.CAPACITY, because="the cloud had no machine to give", strength="code",
      phrases=phrases("resource:memory", "resource:cpu", "resource:eni", "resource:ports", "resource:gpu", "resource:fargate", "capacity is unavailable", "insufficientinstancecapacity", "insufficient capacity", "insufficientcapacity", "capacity provider error", "insufficient_instance_capacity", "no capacity", "not have sufficient capacity", "don't have sufficient capacity", "do not currently have sufficient", "does not have enough resources available", "zone_resource_pool_exhausted", "resource_pool_exhausted", "stockout", "skunotavailable",
                      "allocationfailed", "zonalallocationfailed", "overconstrainedallocation", "maxspotinstancecountexceeded", "vcpulimitexceeded", "instancelimitexceeded", "spotmaxpricetoolow", "unfulfillablecapacity",  "not enough resources", "out of capacity", "requested resource is not available in the location", "resource is not available in the location", "cluster_capacity", "instance capacity", "no available worker", "no workers available", "novalidworkererror", "cloud_provider_resource_stockout", "cloud_provider_launch_failure", "quota_exceeded", "vcpu limit", "no available capacity", "resourcesnotavailable", "insufficient resources", "insufficient_capacity", "queue is full", "max_concurrent_runs_exceeded", "concurrentrunsexceeded", "maximum number of concurrent", "too many concurrent", "concurrent run limit", "all slots are in use", "the server is at capacity", "at capacity", "maxcapacityexceeded", "applicationmaxcapacityexceededexception", "exceeded maximumcapacity", "maximumcapacity", "could not be allocated", "instance pool * max capacity", "capacity of the cluster"),
      unless=phrases("model is at capacity", "engine is currently overloaded", "overloaded_error", "too many concurrent queries", "too many concurrent requests", "throttl")),
    R(id="no-ip-address", failure_class=F.CAPACITY, because="the network had no address left for it", strength="code",
      phrases=phrases("insufficientfreeaddresses", "failed to assign an ip address", "no free ip", "not enough free addresses", "failed to allocate ip", "ip exhaustion", "no ip addresses available", "free addresses in subnet", "network interface provisioning")),
    # -- the machine went away
    R(id="executor-heartbeat", failure_class=F.TRANSIENT, because="an executor did not answer in time", strength="code", cure=Cure.MINUTES,
      phrases=phrases("executor heartbeat timed out", "executorlostfailure", "cannot receive any reply", "futures timed out after")),
    R(id="own-disk-limit", failure_class=F.INFRASTRUCTURE, because="it wrote more to the disk than its pod may", strength="code", cure=Cure.OWNER,
      phrases=phrases("ephemeral local storage usage exceeds", "exceeded its local ephemeral storage limit", "usage of emptydir volume * exceeds")),
    R(id="evicted", failure_class=F.CRASHED, because="the platform took the machine away", strength="code",
      phrases=phrases("was evicted", "evicted", "taintmanagereviction", "preempted", "preempting", "preemption notice", "preempting container", "spotinterruption", "spot interruption", "spot instance interruption", "spot instance termination", "spot_instance_termination", "spot instance * terminat", "imminent node shutdown", "nodelost", "node lost", "nodeshutdown", "node shutdown", "nodenotready", "node not ready", "deletionbytaintmanager", "node was drained", "node drained", "host ec2", "instance terminated", "instance was terminated", "executor lost", "worker node lost", "lost node", "slave lost", "machine preempted", "node_died", "nodediederror", "node failure", "scaling down", "scaled down", "scale-down", "container instance * deregistered", "instance retire", "workerlosterror", "host is being", "machine was reclaimed", "reclaimed"),
      unless=phrases("low on resource: memory", "preemption: 0/", "no preemption victims")),
    # -- the platform itself, for a moment
    R(id="sandbox-failed", failure_class=F.TRANSIENT, because="the node could not set the pod up", cure=Cure.MINUTES, strength="code",
      phrases=phrases("failedcreatepodsandbox", "failed to create pod sandbox", "networknotready", "network plugin is not ready", "failedattachvolume", "unable to attach or mount volumes", "multi-attach error", "timed out waiting for the condition", "dockertimeouterror", "containerruntimetimeouterror", "could not transition to started; timed out", "failed calling webhook", "etcdserver: request timed out", "etcdserver: leader changed", "the server is currently unable to handle the request", "unable to handle the request", "internal error occurred: failed calling", "etcdserver")),
    R(id="docker-down", failure_class=F.INFRASTRUCTURE, because="the container runtime on the worker's machine does not answer", strength="code",
      phrases=phrases("could not connect to docker", "error while fetching server api version", "cannot connect to the docker daemon", "is the docker daemon running", "docker.sock")),
    # -- what the owner has to mend
    R(id="limit-range", failure_class=F.ENVIRONMENT, because="the cluster's rules do not allow such a pod", strength="code",
      phrases=phrases("maximum memory usage per", "maximum cpu usage per", "minimum memory usage per", "minimum cpu usage per", "must be less than or equal to", "admission webhook * denied", "violates podsecurity", "denied the request", "is invalid: spec", "unable to validate against any", "job.batch * is invalid", "pod * is invalid", "unprocessable entity: job", "strict decoding error", "no match for platform", "is not valid for", "invalid cpu or memory value", "invalid 'cpu' setting", "no fargate configuration exists", "invalid memory", "total memory usage", "namespaces * not found", "namespace * not found", "serviceaccount * not found")),
    R(id="service-account", failure_class=F.AUTH, because="the worker's service account may not do that", strength="code",
      phrases=phrases("cannot create resource", "cannot get resource", "cannot list resource", "cannot watch resource", "cannot delete resource", "cannot patch resource", "is not authorized to perform: ecs", "is not authorized to perform: iam:passrole", "iam:passrole", "iam.serviceaccounts.actas", "system:serviceaccount", "unable to assume the role", "role * cannot be assumed", "ecs was unable to assume")),
    R(id="init-secrets", failure_class=F.ENVIRONMENT, because="the platform could not prepare the container's secrets, volumes or logs", strength="code",
      phrases=phrases("resourceinitializationerror", "unable to pull secrets", "createcontainerconfigerror", "failedmount", "secret * not found", "secrets * not found", "configmaps * not found", "configmap * not found", "couldn't find key", "failed to validate logger args", "mountvolume.setup failed", "cannotcreatevolumeerror", "volume * not found", "persistentvolumeclaim * not found", "network * not found", "subnet * does not exist", "securitygroup * does not exist")),
    R(id="cannot-start", failure_class=F.ENVIRONMENT, because="the container could not be started", strength="code",
      phrases=phrases("crashloopbackoff", "back-off * restarting failed container", "repeatedly crashes after starting", "createcontainererror", "runcontainererror", "cannotstartcontainererror", "oci runtime create failed", "oci runtime", "executable file not found", "containercannotrun", "starterror", "failed to start container", "no such file or directory: unknown", "exec: \"", "failed to create shim task", "permission denied: unknown", "container failed to start and listen", "failed to create containerd task", "unable to start container process", "could not select device driver", "command not found")),
    R(id="docker-conflict", failure_class=F.ENVIRONMENT, because="a container or port of that name is in use", strength="code",
      phrases=phrases("container name * is already in use", "port is already allocated", "address already in use")),
    R(id="job-deadline", failure_class=F.TIMED_OUT, because="the platform ended it at its time limit", strength="code",
      phrases=phrases("was active on the node longer than the specified deadline", "job was active longer than specified deadline", "activedeadlineexceeded", "reason: deadlineexceeded", "deadlineexceeded job", "activedeadlineseconds", "final state: timeout", "state: timeout", "status: timeout", "state=timeout", "state: timed_out", "status: timed_out", "jobrunstate: timeout", "the configured timeout was reached", "terminating task because it has reached the maximum timeout", "job attempt duration exceeded timeout", "due to time limit", "time limit exceeded", "exceeded the maximum execution time", "reached the maximum timeout", "max_run_duration", "run exceeded timeout", "exceeded the timeout of", "exceeded maximum run time", "exceeded its time limit", "hit walltime", "walltime", "execution_timeout", "airflowtasktimeout", "job timed out after", "reason: timed_out", "did not complete within", "timed out after the specified", "ran longer than", "execution timeout", "timeout reached before", "canceled due to timeout", "cancelled due to timeout", "task timed out after", "exceeded the allotted time", "maximum duration")),
)  # fmt: skip
