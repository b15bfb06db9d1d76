package kmip

import "fmt"

// Tags (KMIP 2.1, 11.57).
const (
	tagAttribute                   = 0x420008
	tagAttributeName               = 0x42000A
	tagAttributeValue              = 0x42000B
	tagAuthentication              = 0x42000C
	tagBatchCount                  = 0x42000D
	tagBatchItem                   = 0x42000F
	tagCommonTemplateAttribute     = 0x42001F
	tagCredential                  = 0x420023
	tagCredentialType              = 0x420024
	tagCredentialValue             = 0x420025
	tagCryptographicAlgorithm      = 0x420028
	tagCryptographicDomain         = 0x420029
	tagCryptographicLength         = 0x42002A
	tagCryptographicParameters     = 0x42002B
	tagCryptographicUsageMask      = 0x42002C
	tagHashingAlgorithm            = 0x420038
	tagKeyBlock                    = 0x420040
	tagKeyFormatType               = 0x420042
	tagKeyMaterial                 = 0x420043
	tagKeyValue                    = 0x420045
	tagMaximumItems                = 0x42004F
	tagMaximumResponseSize         = 0x420050
	tagModulus                     = 0x420052
	tagName                        = 0x420053
	tagNameType                    = 0x420054
	tagNameValue                   = 0x420055
	tagObjectType                  = 0x420057
	tagOperation                   = 0x42005C
	tagPaddingMethod               = 0x42005F
	tagPrivateKeyTemplateAttribute = 0x420065
	tagPrivateKeyUniqueIdentifier  = 0x420066
	tagProtocolVersion             = 0x420069
	tagProtocolVersionMajor        = 0x42006A
	tagProtocolVersionMinor        = 0x42006B
	tagPublicExponent              = 0x42006C
	tagPublicKey                   = 0x42006D
	tagPublicKeyTemplateAttribute  = 0x42006E
	tagPublicKeyUniqueIdentifier   = 0x42006F
	tagQString                     = 0x420071
	tagQueryFunction               = 0x420074
	tagRecommendedCurve            = 0x420075
	tagRequestHeader               = 0x420077
	tagRequestMessage              = 0x420078
	tagRequestPayload              = 0x420079
	tagResponseHeader              = 0x42007A
	tagResponseMessage             = 0x42007B
	tagResponsePayload             = 0x42007C
	tagResultMessage               = 0x42007D
	tagResultReason                = 0x42007E
	tagResultStatus                = 0x42007F
	tagRevocationReason            = 0x420081
	tagRevocationReasonCode        = 0x420082
	tagServerInformation           = 0x420088
	tagState                       = 0x42008D
	tagUniqueBatchItemID           = 0x420093
	tagUniqueIdentifier            = 0x420094
	tagUsername                    = 0x420099
	tagVendorIdentification        = 0x42009D
	tagPassword                    = 0x4200A1
	tagDigitalSignatureAlgorithm   = 0x4200AE
	tagData                        = 0x4200C2
	tagSignatureData               = 0x4200C3
	tagDigestedData                = 0x420107
	tagSensitive                   = 0x420120
	tagExtractable                 = 0x420122
	tagAttributes                  = 0x420125
	tagCommonAttributes            = 0x420126
	tagPrivateKeyAttributes        = 0x420127
	tagPublicKeyAttributes         = 0x420128
	tagServerName                  = 0x42012D
	tagAttributeReference          = 0x42013B
)

// Operations (KMIP 2.1, 11.37).
const (
	opCreateKeyPair    = 0x02
	opLocate           = 0x08
	opGet              = 0x0A
	opGetAttributes    = 0x0B
	opActivate         = 0x12
	opRevoke           = 0x13
	opDestroy          = 0x14
	opQuery            = 0x18
	opDiscoverVersions = 0x1E
	opSign             = 0x21
)

// operationName names an operation for people.
func operationName(op uint32) string {
	switch op {
	case opCreateKeyPair:
		return "Create Key Pair"
	case opLocate:
		return "Locate"
	case opGet:
		return "Get"
	case opGetAttributes:
		return "Get Attributes"
	case opActivate:
		return "Activate"
	case opRevoke:
		return "Revoke"
	case opDestroy:
		return "Destroy"
	case opQuery:
		return "Query"
	case opDiscoverVersions:
		return "Discover Versions"
	case opSign:
		return "Sign"
	}
	return fmt.Sprintf("operation 0x%02X", op)
}

// Result status and reasons (KMIP 2.1, 11.50 and 11.49).
const (
	statusSuccess = 0
	statusPending = 2

	reasonItemNotFound     = 0x01
	reasonAuthentication   = 0x03
	reasonInvalidMessage   = 0x04
	reasonBadPassword      = 0x25
	reasonObjectDestroyed  = 0x36
	reasonObjectNotFound   = 0x37
	reasonWrongLifeCycle   = 0x43
	reasonUnsupportedProto = 0x3F
)

// reasonName names the reasons that say something to people.
func reasonName(reason uint32) string {
	switch reason {
	case reasonItemNotFound:
		return "item not found"
	case 0x02:
		return "response too large"
	case reasonAuthentication:
		return "authentication not successful"
	case reasonInvalidMessage:
		return "invalid message"
	case 0x05:
		return "operation not supported"
	case 0x06:
		return "missing data"
	case 0x07:
		return "invalid field"
	case 0x08:
		return "feature not supported"
	case 0x0A:
		return "cryptographic failure"
	case 0x0B:
		return "illegal operation"
	case 0x0C:
		return "permission denied"
	case 0x0D:
		return "object archived"
	case 0x10:
		return "key format type not supported"
	case 0x16:
		return "sensitive"
	case 0x18:
		return "object already exists"
	case 0x1A:
		return "usage limit exceeded"
	case reasonBadPassword:
		return "bad password"
	case 0x35:
		return "name not unique"
	case reasonObjectDestroyed:
		return "object destroyed"
	case reasonObjectNotFound:
		return "object not found"
	case 0x39:
		return "not authorised"
	case 0x3A:
		return "server limit exceeded"
	case 0x3E:
		return "unsupported cryptographic parameters"
	case reasonUnsupportedProto:
		return "unsupported protocol version"
	case reasonWrongLifeCycle:
		return "wrong key life cycle state"
	case 0x100:
		return "general failure"
	}
	return fmt.Sprintf("reason 0x%02X", reason)
}

// Object types, states, formats and other enumerations that keys need.
const (
	objectPublicKey  = 0x03
	objectPrivateKey = 0x04

	statePreActive = 1
	stateActive    = 2

	formatRaw          = 0x01
	formatPKCS1        = 0x03
	formatX509         = 0x05
	formatRSA          = 0x0B // transparent
	formatECDSA        = 0x0F // transparent, until 1.4
	formatEC           = 0x15 // transparent
	algorithmRSA       = 0x04
	algorithmECDSA     = 0x06
	algorithmEC        = 0x1A
	algorithmEd25519   = 0x37
	algorithmEd448     = 0x38
	curveP256          = 0x07
	curveP384          = 0x0A
	curve25519         = 0x45
	curve448           = 0x46
	hashSHA256         = 0x06
	hashSHA384         = 0x07
	hashSHA512         = 0x08
	signRSASHA256      = 0x05
	signRSASHA512      = 0x07
	signECDSASHA256    = 0x0E
	signECDSASHA384    = 0x0F
	paddingPKCS1       = 0x08
	usageSign          = 0x01
	usageVerify        = 0x02
	queryOperations    = 0x01
	queryServer        = 0x03
	nameText           = 0x01
	credentialPassword = 0x01
	revokeCessation    = 0x06
)

// stateName names the state of an object.
func stateName(state uint32) string {
	switch state {
	case statePreActive:
		return "pre-active"
	case stateActive:
		return "active"
	case 3:
		return "deactivated"
	case 4:
		return "compromised"
	case 5, 6:
		return "destroyed"
	}
	return fmt.Sprintf("state %d", state)
}
