//! Verifying an id token.

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use openidconnect::core::CoreJwsSigningAlgorithm as Algorithm;
use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, IdToken, IdTokenVerifier, IssuerUrl,
    Nonce, SignatureVerificationError,
};

use crate::claims::{IdTokenClaims, OtherClaims};
use crate::error::SignInError;
use crate::flow::FLOW_LIFETIME;

/// The algorithms that are believed: public keys only. A client that knows its secret could also verify HS256, but
/// then everybody who knows that secret could sign in as anybody.
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::RsaSsaPkcs1V15Sha256, Algorithm::EcdsaP256Sha256, Algorithm::EdDsa];
/// Their names.
pub(crate) const ALGORITHM_NAMES: [&str; 3] = ["RS256", "ES256", "EdDSA"];
/// By how much a provider's clock may be wrong.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

type Token = IdToken<OtherClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, Algorithm>;

/// What a token must say.
pub(crate) struct Expected<'e> {
    pub(crate) issuer: &'e str,
    pub(crate) client_id: &'e str,
    pub(crate) nonce: &'e str,
    /// The token that came with it.
    pub(crate) access_token: &'e str,
    pub(crate) now_us: i64,
}

/// Why a token was not accepted.
pub(crate) enum Rejection {
    /// It names a key that isn't in the set; another set may have it.
    UnknownKey,
    /// It is wrong, whatever the keys.
    Invalid(SignInError),
}

fn invalid(text: &'static str) -> Rejection {
    Rejection::Invalid(SignInError::InvalidToken(text.into()))
}

/// A token that was read, and is not believed yet.
pub(crate) struct Unverified(Token);

impl Unverified {
    /// Reads a token.
    pub(crate) fn read(text: &str) -> Result<Self, SignInError> {
        Token::from_str(text)
            .map(Self)
            .map_err(|_| SignInError::InvalidToken("the id token can't be read".into()))
    }

    /// The claims, once everything about the token is checked.
    pub(crate) fn verify(
        &self,
        keys: &CoreJsonWebKeySet,
        expected: &Expected<'_>,
    ) -> Result<IdTokenClaims, Rejection> {
        let verifier = verifier(keys, expected)?;
        let nonce = Nonce::new(expected.nonce.to_owned());
        let claims = self.0.claims(&verifier, &nonce).map_err(|error| rejection(&error))?;
        if claims.authorized_party().is_some_and(|party| party.as_str() != expected.client_id) {
            return Err(invalid("`azp` in the id token is another client"));
        }
        let latest = seconds(expected.now_us).saturating_add_unsigned(CLOCK_SKEW.as_secs());
        if let Some(not_before) = claims.additional_claims().0.get("nbf")
            && !not_before.as_f64().is_some_and(|second| second <= latest as f64)
        {
            return Err(invalid("the id token is not valid yet"));
        }
        self.check_access_token(claims, &verifier, expected.access_token)?;
        Ok(claims.clone())
    }

    /// A provider may bind the access token to the id token, so that neither can be exchanged on its way.
    fn check_access_token(
        &self,
        claims: &IdTokenClaims,
        verifier: &IdTokenVerifier<'_, CoreJsonWebKey>,
        access_token: &str,
    ) -> Result<(), Rejection> {
        let Some(hash) = claims.access_token_hash() else { return Ok(()) };
        let unhashable = |_| invalid("`at_hash` can't be computed");
        let key = self.0.signing_key(verifier).map_err(unhashable)?;
        let algorithm = self.0.signing_alg().map_err(unhashable)?;
        let access_token = AccessToken::new(access_token.to_owned());
        let actual = AccessTokenHash::from_token(&access_token, algorithm, key)
            .map_err(|_| invalid("`at_hash` can't be computed"))?;
        if actual == *hash { Ok(()) } else { Err(invalid("`at_hash` is of another access token")) }
    }
}

fn seconds(us: i64) -> i64 {
    us.div_euclid(1_000_000)
}

/// What checks issuer, audience, algorithm, signature and times. A public client's verifier knows no secret, so no
/// HMAC can pass.
fn verifier<'v>(
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<IdTokenVerifier<'v, CoreJsonWebKey>, Rejection> {
    let issuer = IssuerUrl::new(expected.issuer.to_owned())
        .map_err(|_| Rejection::Invalid(SignInError::Misconfigured("the issuer is no address".into())))?;
    let now = seconds(expected.now_us);
    let skew = CLOCK_SKEW.as_secs();
    let (earliest, latest) =
        (now.saturating_sub_unsigned(FLOW_LIFETIME.as_secs() + skew), now.saturating_add_unsigned(skew));
    let expiry_clock = UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or(0).saturating_sub(skew));
    let client_id = ClientId::new(expected.client_id.to_owned());
    Ok(IdTokenVerifier::new_public_client(client_id, issuer, keys.clone())
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || expiry_clock.into())
        // Its nonce is of this flow, so it can't have been made before the flow.
        .set_issue_time_verifier_fn(move |issued| {
            let is_recent = (earliest..=latest).contains(&issued.timestamp());
            if is_recent { Ok(()) } else { Err("issued too long ago, or in the future".to_owned()) }
        }))
}

/// The library's reasons as fixed texts: its own repeat what the token says.
fn rejection(error: &ClaimsVerificationError) -> Rejection {
    use SignatureVerificationError as Signature;
    invalid(match error {
        ClaimsVerificationError::SignatureVerification(Signature::NoMatchingKey) => {
            return Rejection::UnknownKey;
        }
        ClaimsVerificationError::SignatureVerification(error) => match error {
            Signature::AmbiguousKeyId(_) => {
                "the id token doesn't say which of several keys it was signed with"
            }
            Signature::CryptoError(_) => "the id token's signature is wrong",
            Signature::DisallowedAlg(_) | Signature::UnsupportedAlg(_) => {
                "the id token is signed with an algorithm that is not allowed"
            }
            Signature::NoSignature => "the id token is not signed",
            _ => "the id token's signature can't be checked",
        },
        ClaimsVerificationError::Expired(_) => "the id token has expired, or was issued at another time",
        ClaimsVerificationError::InvalidAudience(_) => "the id token is for another client",
        ClaimsVerificationError::InvalidIssuer(_) => "the id token is of another issuer",
        ClaimsVerificationError::InvalidNonce(_) => "the id token is of another sign-in (nonce)",
        ClaimsVerificationError::Unsupported(_) => "the id token is of a kind that is not supported",
        _ => "the id token fails a check",
    })
}
