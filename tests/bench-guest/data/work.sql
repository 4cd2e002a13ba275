create table item(id integer primary key, name text, price integer, shelf integer);
create table sale(id integer primary key, item integer, amount integer);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
  insert into item select i, 'item ' || (i * 7919 % 2003), i * 37 % 500, i % 20 from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 6000)
  insert into sale select i, 1 + i * 104729 % 2000, i % 9 from n;
create index by_item on sale(item);
commit;
select shelf, count(*), sum(amount * price) from sale join item on item.id = sale.item group by shelf order by 3 desc limit 5;
update item set price = price + 1 where name like '%7%';
select sum(price), max(name), count(distinct price) from item;
delete from sale where item in (select id from item where price > 400);
select count(*), total(amount) from sale;
select group_concat(name, ';') from (select name from item order by name limit 10);
drop table sale;
drop table item;
