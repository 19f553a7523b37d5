//! Who may give whom which role, and which scopes a key may be made with: nobody hands out more than they have.
//!
//! What each role and each scope may do is the table of [`Permission::granted_to`]. Roles are compared as sets of permissions, not by
//! rank: an auditor may do what a member may not, and the other way round. As only owners have [`Permission::OwnersManage`], it
//! follows that only an owner makes, changes or removes an owner. That an org keeps an owner is a rule on rows: the store's.

use crate::keys::KeyScope;
use crate::permissions::{Actor, Caller, Permission, PermissionSet, Role};

/// Whether someone with the role `own` may give the role `new` to someone who has the role `old`, or is not a member yet. Inviting
/// is giving a role to someone who is not a member.
pub fn can_grant(own: Role, old: Option<Role>, new: Role) -> bool {
    may_hand_out(PermissionSet::of_role(own), old, Some(new))
}

/// Whether someone with the role `own` may remove a member with the role `old`. Everybody may leave, whatever this says.
pub fn can_remove(own: Role, old: Role) -> bool {
    may_hand_out(PermissionSet::of_role(own), Some(old), None)
}

/// The same for every kind of caller: a key gives roles too, within its scopes.
pub fn may_change_role(caller: &Caller, old: Option<Role>, new: Option<Role>) -> bool {
    may_hand_out(caller.permissions(), old, new)
}

/// Whether a caller may make a key with these scopes. A key without scopes may do nothing, so everyone who makes keys may make one.
/// The scope `*` includes what will be added later; only who has everything gives it.
pub fn can_give_scopes(caller: &Caller, scopes: &[KeyScope]) -> bool {
    let own = caller.permissions();
    let may_give_all = match &caller.actor {
        Actor::Key { scopes, .. } => scopes.contains(&KeyScope::All),
        Actor::Person { role, .. } => *role == Role::Owner,
        Actor::Service { .. } => true,
    };
    own.contains(Permission::KeysManage)
        && PermissionSet::of_scopes(scopes).is_within(own)
        && (may_give_all || !scopes.contains(&KeyScope::All))
}

fn may_hand_out(own: PermissionSet, old: Option<Role>, new: Option<Role>) -> bool {
    let touched = [old, new].into_iter().flatten();
    own.contains(Permission::MembersManage)
        && touched.map(PermissionSet::of_role).all(|set| set.is_within(own))
}

#[cfg(test)]
mod tests {
    use Role::{Admin, Auditor, Member, Owner, Viewer};
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;
    use crate::ids::{KeyId, OrgId, UserId};

    fn caller(actor: Actor) -> Caller {
        Caller { actor, ..Caller::service("test", &OrgId::default_org()) }
    }

    fn person(role: Role) -> Caller {
        caller(Actor::Person { user_id: UserId::random(), role })
    }

    fn key(scopes: &[KeyScope]) -> Caller {
        caller(Actor::Key { key_id: KeyId::random(), scopes: scopes.to_vec() })
    }

    fn olds() -> impl Iterator<Item = Option<Role>> {
        std::iter::once(None).chain(Role::EVERY.map(Some))
    }

    #[test]
    fn owners_give_every_role_and_admins_all_but_owner() {
        for old in olds() {
            for new in Role::EVERY {
                assert!(can_grant(Owner, old, new));
                assert_eq!(can_grant(Admin, old, new), old != Some(Owner) && new != Owner, "{old:?} {new:?}");
                assert!([Auditor, Member, Viewer].iter().all(|own| !can_grant(*own, old, new)));
            }
        }
        assert!(Role::EVERY.iter().all(|old| can_remove(Owner, *old)));
        assert!(Role::EVERY.iter().all(|old| can_remove(Admin, *old) == (*old != Owner)));
        assert!(Role::EVERY.iter().all(|old| !can_remove(Member, *old) && !can_remove(Auditor, *old)));
    }

    #[test]
    fn nobody_gives_more_than_they_have_and_only_owners_touch_owners() {
        for own in Role::EVERY {
            let set = PermissionSet::of_role(own);
            for old in olds() {
                for new in Role::EVERY.into_iter().filter(|new| can_grant(own, old, *new)) {
                    assert!(PermissionSet::of_role(new).is_within(set));
                    assert!(own == Owner || (old != Some(Owner) && new != Owner));
                    // Nor does it help to go by the role that was given.
                    assert!(
                        Role::EVERY
                            .iter()
                            .all(|next| !can_grant(new, old, *next) || can_grant(own, old, *next))
                    );
                }
            }
        }
    }

    #[test]
    fn only_owners_make_keys_that_may_do_everything() {
        assert!(can_give_scopes(&person(Owner), &[KeyScope::All]));
        assert!(!can_give_scopes(&person(Admin), &[KeyScope::All]));
        assert!(can_give_scopes(&person(Admin), &[KeyScope::EventsWrite, KeyScope::MembersManage]));
        assert!(!can_give_scopes(&person(Member), &[KeyScope::EventsWrite]));
        assert!(!can_give_scopes(&key(&[KeyScope::KeysManage]), &[KeyScope::All]));
        assert!(!can_give_scopes(&key(&[KeyScope::KeysManage]), &[KeyScope::EventsWrite]));
        assert!(can_give_scopes(&key(&[KeyScope::KeysManage]), &[KeyScope::KeysManage]));
        assert!(can_give_scopes(&key(&[KeyScope::All]), &[KeyScope::All]));
        assert!(can_give_scopes(&person(Admin), &[]) && !can_give_scopes(&key(&[]), &[]));
        // A key with every single scope is not one with `*`.
        assert!(!can_give_scopes(&key(&KeyScope::EVERY[1..]), &[KeyScope::All]));
        assert!(can_give_scopes(&Caller::service("cli", &OrgId::default_org()), &[KeyScope::All]));
    }

    #[test]
    fn a_key_gives_roles_within_its_scopes() {
        let managing = key(&[KeyScope::MembersManage]);
        assert!(Role::EVERY.iter().all(|role| !may_change_role(&managing, None, Some(*role))));
        let reading = key(&[KeyScope::MembersManage, KeyScope::EventsRead, KeyScope::OrgRead]);
        assert!(
            may_change_role(&reading, None, Some(Viewer)) && may_change_role(&reading, Some(Viewer), None)
        );
        assert!(!may_change_role(&reading, Some(Member), Some(Viewer)));
        let all = key(&[KeyScope::All]);
        assert!(may_change_role(&all, None, Some(Member)) && may_change_role(&all, Some(Auditor), None));
        // An owner's rights include some that no key has.
        assert!(!may_change_role(&all, None, Some(Owner)) && !may_change_role(&all, Some(Owner), None));
    }

    proptest! {
        /// A key may do nothing that its maker may not, and so on along any line of keys that make keys.
        #[test]
        fn no_line_of_keys_gains_anything(
            role in select(Role::EVERY.to_vec()),
            line in prop::collection::vec(subsequence(KeyScope::EVERY.to_vec(), 0..=KeyScope::EVERY.len()), 1..5),
        ) {
            let mut maker = person(role);
            let own = maker.permissions();
            for scopes in line {
                if !can_give_scopes(&maker, &scopes) {
                    continue;
                }
                let made = key(&scopes);
                prop_assert!(made.permissions().is_within(own));
                prop_assert!(role == Owner || !scopes.contains(&KeyScope::All));
                for old in olds() {
                    for new in olds().filter(|new| may_change_role(&made, old, *new)) {
                        prop_assert!(may_change_role(&person(role), old, new));
                    }
                }
                maker = made;
            }
        }
    }
}
