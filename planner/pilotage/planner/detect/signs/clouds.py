# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs of cloud APIs: AWS error codes (botocore's own retry lists first), Google reasons, Azure codes, model APIs."""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import FailureRule, coded, phrases, words
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule

MONEY: tuple[FailureRule, ...] = (
    R(id="quota-spent", failure_class=F.QUOTA_SPENT, because="the account's paid quota or credit is spent", strength="code",
      phrases=phrases("insufficient_quota", "free query bytes", "quota for free", "exceeded your current quota", "credit balance is too low", "billing hard limit", "billing_hard_limit", "billing_not_active", "billing is disabled", "billing account", "billing has not been enabled", "billingnotenabled", "billing is not enabled", "payment required", "resource monitor * exceeded", "exceeded its quota", "out of credits", "insufficient credits", "no credits", "credits exhausted", "insufficient funds", "insufficient balance", "monthly limit", "monthly quota", "monthly usage limit",
                      "spending limit", "spend limit", "usage limit reached", "usage limit exceeded", "reached your specified api usage limits", "subscription has expired", "subscription expired", "trial has expired", "free trial", "free tier limit", "your plan", "plan limit", "account is suspended", "account suspended", "account has been suspended", "accountproblem", "account_deactivated", "account is disabled", "quota for this month", "queryusageperday", "custom quota exceeded", "billingtierlimitexceeded", "dailylimitexceeded", "daily limit exceeded", "daily request limit", "api calls exceeded * day", "request_limit_exceeded: totalrequests", "totalrequests limit exceeded", "requests per day", "storage quota has been exceeded", "storagequotaexceeded", "user's drive storage quota", "data transfer quota", "quota is exhausted", "license has expired", "license expired", "sandbox * quota", "cu limit", "capacity limit for your plan", "exceeded the limit of your plan", "upgrade your plan")),
    R(id="quota-to-raise", failure_class=F.QUOTA_SPENT, because="a limit of the account is reached that only its owner can raise", strength="code",
      exceptions=words("ServiceQuotaExceededException QuotaExceededException ServiceLimitExceededException")),
)  # fmt: skip

RATE: tuple[FailureRule, ...] = (
    R(id="aws-throttled", failure_class=F.RATE_LIMITED, because="AWS asked to slow down (botocore's list of throttling codes)", strength="code",
      exceptions=words("Throttling ThrottlingException ThrottledException RequestThrottledException TooManyRequestsException ProvisionedThroughputExceededException RequestLimitExceeded BandwidthLimitExceeded LimitExceededException RequestThrottled SlowDown EC2ThrottledException PriorRequestNotComplete KMSThrottlingException ThroughputExceeded TooManyRequests InsufficientThroughput ReadThrottle WriteThrottle EventualConsistencyLimitExceeded TransactionInProgressException")),
    R(id="rate-limited", failure_class=F.RATE_LIMITED, because="the other side asked to slow down",
      phrases=phrases("too many requests", "toomanyrequests", "rate limit", "ratelimit", "rate_limit", "rate-limit", "rate exceeded", "slow down", "slowdown", "throttl", "throttled", "throttling", "request rate is large", "please reduce your request rate", "requests per minute", "requests per second", "tokens per min", "per minute per user", "per 100 seconds", "user-100s", "insufficient tokens for quota", "ratelimitexceeded", "userratelimitexceeded", "user rate limit exceeded", "quotaexceeded", "quota exceeded for quota metric", "quota exceeded for", "quota exceeded: your", "exceeded rate limits", "exceeded quota for", "resource_exhausted", "resource has been exhausted", "jobratelimitexceeded", "too many table update operations", "retry your request after", "api call limit", "request limit exceeded", "request_limit_exceeded", "calls per minute", "maximum rate", "too many calls", "too many attempts", "secondary rate limit", "abuse detection", "limit on the number of requests", "reduce the rate", "hit the limit of requests", "request was throttled", "server_busy_throttle", "request volume", "over the rate", "query rate", "usagelimits", "number of requests has exceeded", "requests are being throttled"),
      exclusive=coded("http", "500 502")),
    R(id="rate-limited-type", failure_class=F.RATE_LIMITED, because="the client raised a rate-limit error", strength="code",
      exceptions=words("RateLimitError RateLimitExceeded RateLimitExceededException RateLimitedError RateLimitException TooManyRequestsError ResourceExhausted RetryAfterError FloodWaitError Throttled ThrottleError RequestLimitExceededError HTTPTooManyRequests ApiRateLimitError RateLimitReached QuotaExceeded QuotaExceededError RateLimiterException TwitterRateLimit OverLimit TooManyRequestsHTTPError")),
)  # fmt: skip

AWS: tuple[FailureRule, ...] = (
    R(id="aws-auth", failure_class=F.AUTH, because="AWS refused the credentials or the right", strength="code",
      exceptions=words("AccessDenied AccessDeniedException AccessDeniedFault UnauthorizedOperation AuthFailure ExpiredToken ExpiredTokenException InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch InvalidAccessKeyId InvalidToken InvalidTokenException RequestExpired TokenRefreshRequired NotAuthorizedException AuthorizationError AuthorizationErrorException KMSAccessDeniedException OptInRequired MissingAuthenticationToken MissingAuthenticationTokenException InvalidSignatureException IncompleteSignature IncompleteSignatureException InvalidIdentityToken AllAccessDisabled AuthorizationHeaderMalformed InvalidSecurity NotSignedUp RequestTimeTooSkewed UnauthorizedException ExpiredTokenError SSOTokenLoadError UnauthorizedSSOTokenError TokenRetrievalError CredentialRetrievalError NoCredentialsError PartialCredentialsError InvalidGrantException ForbiddenException KMSInvalidStateException DisabledException InvalidKeyUsageException NoAuthTokenError ProfileNotFound")),
    R(id="aws-transient", failure_class=F.TRANSIENT, because="AWS failed for a moment (botocore's list of transient codes)", strength="code",
      exceptions=words("RequestTimeout RequestTimeoutException InternalError InternalFailure InternalServerError InternalServerException InternalServiceException InternalServiceError InternalServerFault InternalServerErrorException ServiceUnavailable ServiceUnavailableException ServiceUnavailableError ServiceException ServerException ServiceFailure IDPCommunicationError TransactionConflictException TransactionConflict ConcurrentModificationException OperationAborted ReplicatedWriteConflictException LimitExceededFault503 DependencyTimeoutException DependencyThrowable EndpointConnectionError ConnectTimeoutError ReadTimeoutError ConnectionClosedError HTTPClientError ModelTimeoutException ModelNotReadyException ServerError ResponseStreamingError IncompleteReadError EC2ServerException KinesisInternalError")),
    R(id="aws-capacity", failure_class=F.CAPACITY, because="AWS had no capacity to give, or all of the account's is in use", strength="code",
      exceptions=words("InsufficientInstanceCapacity InsufficientCapacity InsufficientHostCapacity InsufficientReservedInstanceCapacity InsufficientVolumeCapacity CapacityNotAvailable VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded SpotMaxPriceTooLow UnfulfillableCapacity ConcurrentRunsExceededException ResourceLimitExceeded ResourceLimitExceededException ResourceNumberLimitExceededException InsufficientInstanceCapacityFault InsufficientClusterCapacityFault PlatformTaskDefinitionIncompatibilityException_ ServerNotReady InsufficientFreeAddressesInSubnet ConcurrentQueryLimit TooManyConcurrentRuns")),
    R(id="aws-absent", failure_class=F.DEPENDENCY, because="something that it needs does not exist in AWS", strength="code", cure=Cure.OWNER,
      exceptions=words("NoSuchBucket NoSuchKey NoSuchUpload NoSuchVersion NoSuchEntity NoSuchEntityException ResourceNotFoundException EntityNotFoundException ResourceNotFoundFault QueueDoesNotExist NonExistentQueue ClusterNotFoundException ClusterNotFoundFault RepositoryNotFoundException ImageNotFoundException DBInstanceNotFound DBInstanceNotFoundFault NotFoundException FileNotFoundException TableNotFoundException StreamNotFound SecretNotFound ParameterNotFound FunctionNotFound NoSuchBucketException")),
    R(id="aws-input", failure_class=F.BAD_INPUT, because="AWS does not accept the request", strength="code",
      exceptions=words("ValidationException InvalidParameterException InvalidParameterValue InvalidParameterValueException InvalidParameterCombination InvalidInputException MalformedXML MalformedPolicyDocument SerializationException ConditionalCheckFailedException EntityTooLarge EntityTooSmall InvalidRequestException InvalidArgument InvalidRequest MissingParameter MissingRequiredParameter BucketAlreadyExists BucketAlreadyOwnedByYou InvalidBucketName InvalidRange InvalidObjectState PreconditionFailed ItemCollectionSizeLimitExceededException AlreadyExistsException ResourceInUseException ResourceAlreadyExistsException ResourceConflictException ParamValidationError InvalidS3ObjectException UnsupportedMediaTypeException InvalidDefinition ClientException PayloadTooLargeException RequestEntityTooLargeException XMinioInvalidObjectName DuplicateItemException")),
    R(id="aws-configuration", failure_class=F.ENVIRONMENT, because="the AWS client is not configured where the run is executed", strength="code",
      exceptions=words("NoRegionError ConfigNotFound ConfigParseError DataNotFoundError UnknownServiceError UnknownRegionError InvalidConfigError InfiniteLoopConfigError PermanentRedirect IllegalLocationConstraintException")),
)  # fmt: skip

GOOGLE: tuple[FailureRule, ...] = (
    R(id="google-api-off", failure_class=F.ENVIRONMENT, because="the Google API is not switched on in the project", strength="code",
      phrases=phrases("accessnotconfigured", "service_disabled", "it is disabled. enable it", "api has not been used in project")),
    R(id="google-token-service", failure_class=F.TRANSIENT, because="Google's token service failed for a moment", strength="code",
      exceptions=words("RefreshError TransportError MutualTLSChannelError"), codes=coded("http", "500 502 503 504")),
    R(id="google-token-network", failure_class=F.TRANSIENT, because="Google's token service could not be reached", strength="code",
      exceptions=words("RefreshError TransportError DefaultCredentialsError"),
      phrases=phrases("temporary error", "please try again in", "timed out", "connection reset", "failed to resolve", "compute engine metadata", "name resolution", "max retries exceeded", "internal_failure", "internal failure", "connection aborted", "failed to retrieve http")),
    R(id="google-auth", failure_class=F.AUTH, because="Google refused the credentials", strength="code",
      phrases=phrases("invalid_grant", "token has been expired or revoked", "could not automatically determine credentials", "your default credentials were not found", "insufficientpermissions", "insufficient authentication scopes", "access_token_scope_insufficient", "accessdenied", "caller does not have permission", "the caller does not have permission", "does not have storage.", "does not have bigquery.", "permission 'bigquery", "permission bigquery", "permission * denied on resource", "iam_permission_denied", "unauthorized_client", "reauth related error", "reauthentication is needed", "invalid jwt signature", "account not found for email", "sa key", "does not have permission", "domainpolicy", "autherror", "vpc service controls")),
    R(id="google-backend", failure_class=F.TRANSIENT, because="Google's service failed for a moment", strength="code",
      phrases=phrases("backenderror", "jobbackenderror", "jobinternalerror", "tableunavailable", "internalerror", "encountered an error during execution. retry", "retrying may solve the problem", "an internal error occurred and the request could not be completed", "visibility check was unavailable", "the service is currently unavailable", "server error (server error)", "the server encountered a temporary error")),
    R(id="google-types-transient", failure_class=F.TRANSIENT, because="Google's service failed for a moment", strength="code",
      exceptions=words("ServiceUnavailable BadGateway GatewayTimeout InternalServerError DeadlineExceeded Aborted Unknown_ RetryError ServerError")),
    R(id="google-types-auth", failure_class=F.AUTH, because="Google refused the credentials", strength="code",
      exceptions=words("Unauthenticated PermissionDenied DefaultCredentialsError MalformedError RefreshError GoogleAuthError InvalidOperationAuth ReauthFailError UserAccessTokenError OAuthError")),
    R(id="google-types-absent", failure_class=F.DEPENDENCY, because="something that it needs does not exist at Google", strength="family", cure=Cure.OWNER,
      exceptions=words("SpreadsheetNotFound WorksheetNotFound NotFound")),
    R(id="google-types-input", failure_class=F.BAD_INPUT, because="Google does not accept the request", strength="family",
      exceptions=words("InvalidArgument FailedPrecondition OutOfRange AlreadyExists Conflict PreconditionFailed MethodNotImplemented")),
)  # fmt: skip

AZURE: tuple[FailureRule, ...] = (
    R(id="entra-transient", failure_class=F.TRANSIENT, because="Entra ID failed for a moment", strength="code", codes=coded("aad", "AADSTS90033 AADSTS50196 AADSTS90006 AADSTS90012 AADSTS90020 AADSTS90024 AADSTS90087 AADSTS50001_ AADSTS90010_ AADSTS650052_")),
    R(id="entra-busy", failure_class=F.RATE_LIMITED, because="Entra ID asked to slow down", strength="code", codes=coded("aad", "AADSTS90055 AADSTS700082_ AADSTS90056_")),
    R(id="entra", failure_class=F.AUTH, because="Entra ID refused the credentials", strength="code", phrases=phrases("aadsts")),
    R(id="azure-auth", failure_class=F.AUTH, because="Azure refused the credentials or the right", strength="code",
      exceptions=words("AuthenticationFailed AuthorizationFailed AuthorizationFailure AuthorizationPermissionMismatch InsufficientAccountPermissions InvalidAuthenticationInfo NoAuthenticationInformation ClientAuthenticationError CredentialUnavailableError AuthenticationRequiredError InvalidAuthenticationToken InvalidAuthenticationTokenTenant ExpiredAuthenticationToken LinkedAuthorizationFailed AuthorizationProtocolMismatch AuthorizationResourceTypeMismatch AuthorizationServiceMismatch AuthorizationSourceIPMismatch PublicAccessNotPermitted KeyBasedAuthenticationNotPermitted AccountIsDisabled MsalServiceError MsalUiRequiredException")),
    R(id="azure-busy", failure_class=F.TRANSIENT, because="Azure is busy", strength="code", cure=Cure.MINUTES,
      exceptions=words("ServerBusy OperationTimedOut LeaseAlreadyPresent LeaseIdMissing LeaseIdMismatchWithBlobOperation ContainerBeingDeleted BlobBeingRehydrated TableBeingDeleted AnotherOperationInProgress ResourceNotReady RetryableError ServiceRequestError ServiceResponseError ServiceRequestTimeoutError ServiceResponseTimeoutError IncompleteReadError StreamConsumedError_ DecodeError_ ODataV4Error_")),
    R(id="azure-absent", failure_class=F.DEPENDENCY, because="something that it needs does not exist in Azure", strength="code", cure=Cure.OWNER,
      exceptions=words("BlobNotFound ContainerNotFound ShareNotFound ParentNotFound PathNotFound FilesystemNotFound ResourceNotFound ResourceNotFoundError ResourceGroupNotFound SubscriptionNotFound SecretNotFound QueueNotFound TableNotFound")),
    R(id="azure-input", failure_class=F.BAD_INPUT, because="Azure does not accept the request", strength="code",
      exceptions=words("BlobAlreadyExists ContainerAlreadyExists ResourceExistsError ResourceModifiedError InvalidBlobType InvalidResourceName ConditionNotMet InvalidHeaderValue OutOfRangeInput InvalidQueryParameterValue PathAlreadyExists ResourceAlreadyExists EntityAlreadyExists")),
)  # fmt: skip

MODELS: tuple[FailureRule, ...] = (
    R(id="model-context", failure_class=F.BAD_INPUT, because="the prompt is longer than the model takes", strength="code",
      phrases=phrases("context_length_exceeded", "maximum context length", "prompt is too long", "reduce the length of the messages", "request too large for", "string_above_max_length", "input is too long", "tokens exceeds", "content_policy", "content_filter", "content management policy", "responsibleaipolicy", "invalid_prompt", "invalid_image", "could not parse response content as the length limit")),
    R(id="model-key", failure_class=F.AUTH, because="the model API refused the key", strength="code",
      phrases=phrases("invalid_api_key", "incorrect api key", "invalid x-api-key", "authentication_error", "api key not valid", "invalid api key", "api_key_invalid", "permission_error", "the api_key client option must be set", "you must be a member of an organization", "no api key", "missing api key")),
    R(id="model-unknown", failure_class=F.CODE_BUG, because="the model API does not know the model or the argument", strength="code",
      phrases=phrases("model_not_found", "does not exist or you do not have access to it", "has been deprecated", "not_found_error", "unsupported_parameter", "unsupported_value", "unknown parameter", "unrecognized request argument", "has been decommissioned", "deploymentnotfound")),
    R(id="model-overloaded", failure_class=F.TRANSIENT, because="the model API is overloaded", strength="code", cure=Cure.MINUTES,
      phrases=phrases("overloaded_error", "engine is currently overloaded", "model is currently overloaded", "server is overloaded", "the model is overloaded", "that model is currently overloaded", "model is at capacity", "server_error", "api_error", "server had an error", "is currently loading", "model is loading", "temporarily overloaded", "overloadederror")),
)  # fmt: skip
