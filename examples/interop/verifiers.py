# SPDX-License-Identifier: Apache-2.0

"""Python's PyJWT as a verifier of Client Attestations, and what the package
client-attestation-sdk says of the key in them. The interop tests start it; input
and output are those of verifiers.mjs, with the verifier "PyJWT" or
"client-attestation-sdk".
"""

import json
import sys

import jwt
from client_attestation_sdk import ClientAttestationBuilder, SigningKeyPair


def pyjwt(case):
    header = jwt.get_unverified_header(case["attestation"])
    if header["typ"] != "oauth-client-attestation+jwt":
        raise ValueError("typ of the attestation")
    if header["kid"] != case["attesterKey"]["kid"]:
        raise ValueError("unknown kid")
    attestation = jwt.decode(
        case["attestation"],
        jwt.PyJWK(case["attesterKey"], algorithm="ES256"),
        algorithms=["ES256"],
        options={"require": ["sub", "iat", "exp", "cnf"]},
    )
    if jwt.get_unverified_header(case["pop"])["typ"] != "oauth-client-attestation-pop+jwt":
        raise ValueError("typ of the PoP JWT")
    jwt.decode(
        case["pop"],
        jwt.PyJWK(attestation["cnf"]["jwk"]),  # by its alg
        algorithms=["ES256"],
        audience=case["issuer"],
        options={"require": ["aud", "iat", "jti"], "strict_aud": True},
    )


def sdk(case):
    """The SDK is a client's and an attester's: it verifies no attestation, but it
    does not attest every key."""
    claims = jwt.decode(case["attestation"], options={"verify_signature": False})
    builder = ClientAttestationBuilder(SigningKeyPair.generate("ES256"), "https://attester.example.com")
    builder.client_id(claims["sub"]).confirmation_jwk(claims["cnf"]["jwk"]).expires_in(60).build()


verifiers = {"PyJWT": pyjwt, "client-attestation-sdk": sdk}

for line in sys.stdin:
    case, error = json.loads(line), ""
    try:
        verifiers[case["verifier"]](case)
    except Exception as e:
        error = f"{type(e).__name__}: {e}"
    print(json.dumps({"error": error}), flush=True)
